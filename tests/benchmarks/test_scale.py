"""Memory does not grow with the number of images, and docs/scale.md has the costs that its command prints."""

from __future__ import annotations

import json

import pytest

from benchmarks import cost, made, scale
from tests.conftest import REPOSITORY
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES


@pytest.mark.parametrize(
    ("part", "few", "many", "stages"),
    [
        ("bucket", 5_000, 50_000, {"listing", "fingerprint"}),
        ("bucket_csv", 20_000, 60_000, {"listing", "fingerprint"}),
        (
            "build",
            5_000,
            50_000,
            {"index: splits, classes", "shuffled order, counts", "near duplicates", "statistics, manifest"},
        ),
    ],
)
def test_a_stage_takes_no_more_memory_for_many_images_than_for_few(tmp_path, part, few, many, stages):
    peaks = [
        {stage["stage"]: stage["peak_mib"] for stage in scale.measure(part, entries, str(tmp_path))}
        for entries in (few, many)
    ]
    assert stages <= peaks[0].keys()
    for stage in stages:  # a list of 45,000 entries would be a third of it
        assert peaks[1][stage] < 1.15 * peaks[0][stage] + 3, f"{stage}: {peaks}"


def test_each_stage_is_in_the_table_and_in_the_file(tmp_path, capsys):
    output = tmp_path / "scale.json"
    scale.main(["--entries", "2000", "--folder", str(tmp_path), "--output", str(output), "folder", "many_shards"])
    results = json.loads(output.read_text())
    assert {"folder", "many_shards"} == {result["part"] for result in results}
    assert all(result["entries"] == 2000 and result["peak_mib"] > 10 for result in results)
    assert len(capsys.readouterr().out.splitlines()) == len(results) + 1
    assert list(tmp_path.iterdir()) == [output]


def test_a_part_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        scale.main(["nonsense"])
    assert stopped.value.code == 2
    assert "unknown part: nonsense" in capsys.readouterr().err


def test_made_names_are_in_their_order_and_each_is_in_a_csv_once(tmp_path):
    names = [made.name(number, 2500) for number in range(2500)]
    assert names == sorted(set(names))
    lines = (tmp_path / "a.csv", made.csv(str(tmp_path / "a.csv"), "gs://made", 2500))[0].read_text().splitlines()
    paths = [line.partition(",")[0] for line in lines]
    assert paths != sorted(paths) and sorted(paths) == [f"gs://made/{name}" for name in names]


def test_the_page_has_the_table_that_the_command_prints(capsys):
    cost.main([])
    assert capsys.readouterr().out in (REPOSITORY / "docs" / "scale.md").read_text()


def test_costs_follow_from_rates_and_prices():
    rates = cost.Rates(download=0.001, check=0.003, overhead=2.0, order=0.0, messages=0.0, write_seconds=0.0)
    one = cost.of_one_machine(10_000_000, 110_000, rates)
    beam = cost.of_dataflow(10_000_000, 110_000, 100, rates)
    assert one.vcpu_hours == pytest.approx(10_000_000 * 0.004 / 3600)
    assert one.checking == pytest.approx(one.vcpu_hours / 32)
    assert beam.vcpu_hours == pytest.approx(2 * one.vcpu_hours)
    assert beam.checking == pytest.approx(beam.vcpu_hours / 100)
    assert one.shards == beam.shards == pytest.approx(10_000_000 * 110_000 / SHARD_BYTES, rel=0.001)
    assert one.class_a == 2 * 10_000 + one.shards and one.class_b == 10_000_000
    assert one.requests == pytest.approx(one.class_a * 5e-6 + 4.0)
    assert beam.shuffle == pytest.approx(2 * 1100 * 0.011)
    assert one.starting_disk - beam.starting_disk == pytest.approx(1100)
    twice = cost.of_one_machine(20_000_000, 110_000, rates)
    assert twice.hours == pytest.approx(2 * one.hours) and twice.month == pytest.approx(2 * one.month)


def test_one_process_that_takes_the_results_limits_a_machine_of_many_cores():
    rates = cost.Rates(download=0.0, check=1e-6, order=0.6e-3, results=0.4e-3)
    assert cost.of_one_machine(1000, 110_000, rates).checking == pytest.approx(1.0 / 3600)


@pytest.mark.parametrize("flag", ["--images", "--image_bytes", "--vcpus"])
def test_costs_of_nothing_are_refused(capsys, flag):
    with pytest.raises(SystemExit) as stopped:
        cost.main([flag, "0"])
    assert stopped.value.code == 2
    assert "at least 1" in capsys.readouterr().err
