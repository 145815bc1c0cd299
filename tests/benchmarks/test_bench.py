"""`make bench`: which way its ratios go, the file of its results, and the pictures that it measures on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import __main__ as bench
from benchmarks import beam, photos, timing
from benchmarks.rows import ROWS, LeftOut, Material, Reference, Row, Together
from tests.conftest import REPOSITORY


def jpegs(folder: Path, count: int) -> Path:
    """A folder of JPEGs, each of a size of its own."""
    (folder / "class").mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (130 + number, 120)).save(folder / "class" / f"{number:02}.jpg")
    return folder


def widths(folder: str) -> list[int]:
    return sorted(Image.open(path).width for path in Path(folder).rglob("*.jpg"))


def test_a_ratio_is_above_one_where_ours_costs_less_whether_seconds_or_memory():
    assert timing.compare([(lambda: 2.0, lambda: 6.0), (lambda: 2.0, lambda: 1.0)], 3) == [
        timing.Ratio(3.0, 3.0, 3.0, 2.0, 6.0),
        timing.Ratio(0.5, 0.5, 0.5, 2.0, 1.0),
    ]


def test_a_ratio_is_the_median_over_the_rounds_and_not_of_the_costs():
    ours, reference = iter([1.0, 4.0, 10.0]), iter([10.0, 4.0, 20.0])
    (ratio,) = timing.compare([(lambda: next(ours), lambda: next(reference))], 3, warm_up=False)
    assert (ratio.median, ratio.ours, ratio.reference) == (2.0, 4.0, 10.0)


def test_rounds_begin_after_a_warm_up_and_with_the_first_and_the_last_in_turn():
    calls: list[str] = []

    def measure(name: str, cost: float):
        return lambda: calls.append(name) or cost

    ours = measure("ours", 1.0)
    pairs = [(ours, measure("first", 1.0)), (ours, measure("second", 1.0))]
    timing.compare(pairs, 2)
    assert calls == ["ours", "first", "second"] * 2 + ["second", "first", "ours"]
    calls.clear()
    timing.compare(pairs, 1, warm_up=False)
    assert calls == ["ours", "first", "second"]


def test_what_several_pairs_have_is_measured_once_a_round_for_all_of_them():
    calls: list[str] = []
    costs = {"ours": iter([1.0, 2.0]), "other": iter([4.0, 1.0]), "reference": iter([8.0, 8.0])}

    def measure(name: str):
        return lambda: calls.append(name) or next(costs[name])

    ours, other, reference = (measure(name) for name in costs)
    ratios = timing.compare([(ours, reference), (other, reference)], 2, warm_up=False)
    assert calls == ["ours", "reference", "other", "other", "reference", "ours"]
    assert [ratio.median for ratio in ratios] == [6.0, 5.0]


def test_each_row_is_in_the_table_and_in_the_file_and_measures_the_pictures_of_images(tmp_path, monkeypatch, capsys):
    given: list[Material] = []

    def group(material: Material):
        given.append(material)
        assert widths(material.photographs) == [130, 131, 132]
        yield Row(
            "reading", lambda: 4.0, [Reference("a faster one", 0.9, lambda: 2.0), Reference("x", None, lambda: 8)]
        )
        disk = Reference("the disk", 2.0, lambda: 6.0)
        yield Together([Row("cold", lambda: 2.0, [disk]), Row("warm", lambda: 1.0, [disk])])
        yield LeftOut("reading", "the fastest", 4.0, "it is not installed")
        yield Row("memory", lambda: 100.0, [Reference("of fewer pictures", 1.0, lambda: 150.0)], repeated=False)

    monkeypatch.setattr(bench, "ROWS", {"group": group})
    output = tmp_path / "new folder" / "bench.json"
    bench.main(["--images", str(jpegs(tmp_path / "own", 3)), "--small", "--output", str(output)])
    missing = {"ours": None, "reference": None, "ratio": None}
    assert json.loads(output.read_text()) == [
        {"row": "reading: a faster one", "ours": 4.0, "reference": 2.0, "ratio": 0.5, "goal": 0.9},
        {"row": "reading: x", "ours": 4.0, "reference": 8.0, "ratio": 2.0, "goal": None},
        {"row": "cold: the disk", "ours": 2.0, "reference": 6.0, "ratio": 3.0, "goal": 2.0},
        {"row": "warm: the disk", "ours": 1.0, "reference": 6.0, "ratio": 6.0, "goal": 2.0},
        {"row": "reading: the fastest", **missing, "goal": 4.0, "left_out": "it is not installed"},
        {"row": "memory: of fewer pictures", "ours": 100.0, "reference": 150.0, "ratio": 1.5, "goal": 1.0},
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["what", "reading", "reading", "cold", "warm", "reading", "memory"]
    assert "0.50" in lines[1] and "0.90" in lines[1]
    assert lines[5].endswith("left out: it is not installed")
    assert not Path(given[0].folder).exists()


def test_of_many_pictures_of_ones_own_some_are_taken_evenly(tmp_path):
    folder = photos.photographs(str(jpegs(tmp_path / "own", 12)), 4, str(tmp_path / "taken"))
    assert widths(folder) == [130, 133, 136, 139]


def test_small_pictures_are_grey_pngs_of_the_photographs(tmp_path):
    folder = photos.small_pictures(str(jpegs(tmp_path / "own", 2)), 5, str(tmp_path / "small"))
    paths = sorted(Path(folder).rglob("*.png"))
    assert len(paths) == 5
    assert {(image.size, image.mode) for image in map(Image.open, paths)} == {((28, 28), "L")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nonsense"], "unknown row: nonsense"), (["--pairs", "0"], "has to be at least 1")],
)
def test_a_call_that_measures_nothing_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_pictures_of_phones_are_mosaics_of_all_photographs(tmp_path):
    folder = photos.phone_pictures(str(jpegs(tmp_path / "own", 2)), 3, (400, 300), str(tmp_path / "phone"))
    assert [Image.open(path).size for path in sorted(Path(folder).rglob("*.jpg"))] == [(400, 300)] * 3


def test_without_apache_beam_its_row_says_so(tmp_path):
    assert "make beam" in beam.missing(str(tmp_path / "python"))
    no_beam = tmp_path / "python"
    no_beam.write_text("#!/bin/sh\nexit 1\n")
    no_beam.chmod(0o755)
    assert beam.missing(str(no_beam)) == f"{no_beam} has no Apache Beam"
    with pytest.raises(SystemExit):
        bench.main(["--beam_python", str(no_beam)])


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="holds no JPEG"):
        bench.main(["--images", str(tmp_path), "--output", str(tmp_path / "bench.json")])


def test_ci_keeps_a_small_table_of_all_but_clusters():
    script = (REPOSITORY / ".ci" / "run").read_text()
    (words,) = re.findall(
        r"^\.venv/bin/python -m benchmarks --small (.*) \| tee build/bench\.txt$", script, re.MULTILINE
    )
    assert words.split() == [name for name in ROWS if name != "scaling"]
