"""Checkpoints on gs:// are fetched first: TensorFlow never sees a gs:// path."""

from __future__ import annotations

import re
from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf

from tests.parity.support import V1, save_by_name
from tests.standin import bucket as standin
from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import CheckpointError

OTHERS = 40  # four pages of a listing


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[standin.Buckets]:
    """A bucket that holds a folder of checkpoints, a V1 file and a model folder, and beside each of them many other
    things."""
    patch = pytest.MonkeyPatch()
    with standin.Buckets("bucket", page_size=10) as service:
        patch.setenv("STORAGE_EMULATOR_HOST", service.url)
        model, folder = small(), tmp_path_factory.mktemp("uploaded")
        (folder / "exported").mkdir()
        model.save(folder / "exported" / "model.keras")
        (folder / "saved").mkdir()
        state = tf.train.Checkpoint(model=model)
        for _ in range(2):
            state.save(str(folder / "saved" / "ckpt"))
        (folder / "slim").mkdir()
        save_by_name(
            {name: variable.numpy() for name, variable in nets.scoped_names(model).items()},
            folder / "slim" / "v1.ckpt",
            V1,
        )
        for name in ("exported", "saved", "slim"):
            for number in range(OTHERS):
                (folder / name / f"other-{number}.txt").write_text("beside it")
        standin.fill(service.url, "bucket", "all", folder)
        yield service
    patch.undo()


@pytest.fixture
def bucket(service: standin.Buckets) -> str:
    service.requests.clear()
    return "gs://bucket/all"


def small() -> keras.Model:
    return nets.build("small", image_size=8, outputs={"label": 3})


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("saved", "saved/ckpt-2"),
        ("saved/ckpt-1", "saved/ckpt-1"),
        ("saved/ckpt-1.index", "saved/ckpt-1"),
        ("exported", "exported/model.keras"),
        ("exported/model.keras", "exported/model.keras"),
        ("slim/v1.ckpt", "slim/v1.ckpt"),
        ("slim", "slim/v1.ckpt"),
    ],
)
def test_a_checkpoint_on_gs_is_found_and_loaded(path: str, found: str, bucket: str) -> None:
    report = checkpoints.warm_start(small(), f"{bucket}/{path}", None)
    assert (report.path, len(report.loaded), report.missing) == (f"{bucket}/{found}", 22, [])


def test_a_checkpoint_that_is_not_found_on_gs_is_an_error_that_names_its_neighbours(bucket: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"gs://bucket/all/saved/ckpt-9\. .*The same folder has gs://bucket/all/saved/ckpt-1"
    ):
        checkpoints.warm_start(small(), f"{bucket}/saved/ckpt-9", None)


@pytest.mark.parametrize("path", ["saved", "saved/ckpt-1", "exported", "exported/model.keras", "slim/v1.ckpt"])
def test_the_neighbours_of_a_checkpoint_on_gs_are_neither_listed_nor_fetched(
    path: str, bucket: str, service: standin.Buckets
) -> None:
    checkpoints.warm_start(small(), f"{bucket}/{path}", None)
    assert not [request for request in service.requests if "pageToken" in request]
    assert len(service.requests) <= 16
    fetched = [match[1] for request in service.requests if (match := re.search(r"/o/([^?]+)\?.*alt=media", request))]
    assert not [name for name in fetched if "other" in name]
    assert len(fetched) == len(set(fetched))
