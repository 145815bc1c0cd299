from __future__ import annotations

import datetime as dt

import pytest

from tf_image_classification import flags, storage
from tf_image_classification.data import dates
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion import resolve

TODAY = dt.date(2030, 3, 15)


def _write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_the_newest_date_that_is_not_in_the_future_is_taken(tmp_path):
    _write(
        tmp_path,
        *(
            f"dt={date}/cat/a.png"
            for date in ("2030-03-01", "2030-03-14", "2030-03-16", "2030-02-30", "20300315", "tomorrow")
        ),
    )
    assert dates.newest(f"{tmp_path}/dt={{date}}", TODAY) == f"{tmp_path}/dt=2030-03-14"
    assert dates.newest(f"{tmp_path}/dt={{date}}/*", TODAY) == f"{tmp_path}/dt=2030-03-14/*"


def test_a_date_may_be_in_the_name_of_a_file_and_occur_twice(tmp_path):
    _write(tmp_path, "2030-01-01/list-2030-01-01.csv", "2030-02-01/list-2030-02-01.csv", "2030-03-01/nothing")
    assert dates.newest(f"{tmp_path}/{{date}}/list-{{date}}.csv", TODAY) == f"{tmp_path}/2030-02-01/list-2030-02-01.csv"


def test_a_path_without_a_date_stays_as_it_is():
    assert dates.newest("gs://bucket/*/photos", TODAY) == "gs://bucket/*/photos"


@pytest.mark.parametrize("path", ["{date}.csv", "nowhere/dt={date}", "dt={date}/*", "*/{date}"])
def test_what_is_not_found_is_named(tmp_path, path):
    _write(tmp_path, "dt=2031-01-01/a.png")
    with pytest.raises(FlagError, match=r"\{date\}"):
        dates.newest(f"{tmp_path}/{path}", TODAY)


def test_dates_are_found_in_a_bucket(monkeypatch):
    from tests.standin import bucket

    with bucket.serving("bucket") as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        for date in ("2030-03-01", "2030-03-14", "2030-03-16"):
            storage.write_text(f"gs://bucket/photos/dt={date}/cat/a.png", "x")
        storage.write_text("gs://bucket/photos/list-2030-03-02.csv", "x")
        assert dates.newest("gs://bucket/photos/dt={date}", TODAY) == "gs://bucket/photos/dt=2030-03-14"
        assert dates.newest("gs://bucket/photos/list-{date}.csv", TODAY) == "gs://bucket/photos/list-2030-03-02.csv"


def test_resolve_fills_the_date_in(tmp_path, image_folder):
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    (tmp_path / f"dt={yesterday}").symlink_to(image_folder)
    resolved = resolve.resolve(flags.for_step("resolve", {"train_metadata": f"{tmp_path}/dt={{date}}"}))
    assert resolved.train_sources == f"{tmp_path}/dt={yesterday}"


@pytest.mark.parametrize(
    ("metadata", "filled"),
    [
        ("a/{date}, b/{date}.csv", "a/2030-01-02,b/2030-01-03.csv"),
        ("photos, all/{date}", "photos, all/2030-01-04"),
        ("b/list,b/list-{date}, old.csv,a", "b/list,b/list-2030-01-05, old.csv,a"),
        ("a,photos, all/{date}, x/y.csv", "a,photos, all/2030-01-06, x/y.csv"),
    ],
)
def test_a_path_with_a_date_may_have_commas(tmp_path, monkeypatch, metadata, filled):
    monkeypatch.chdir(tmp_path)
    _write(
        tmp_path, "a/2030-01-02/1.png", "b/2030-01-03.csv", "photos, all/2030-01-04/1.png", "b/list-2030-01-05, old.csv"
    )
    if "x/y" in metadata:
        _write(tmp_path, "photos, all/2030-01-06, x/y.csv")
    assert dates.fill_in(metadata, TODAY) == filled


def test_of_several_paths_the_one_without_data_is_named(tmp_path):
    with pytest.raises(FlagError, match="No data of today or an earlier date") as error:
        dates.fill_in(f"{tmp_path}/a,{tmp_path}/dt={{date}},{tmp_path}/b", TODAY)
    assert f"Received: {tmp_path}/dt={{date}}." in str(error.value)
