"""The measurement of fine-tuning: its command line, its results, its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import finetuning
from benchmarks.finetuning import ROWS, YARDSTICK, Result
from tf_image_classification import command_line, flags
from tf_image_classification.data import manifest

SMALL = ["--model_name", "small", "--image_size", "16", "--batch_size", "4"]
ROW = "two steps: --train_steps 2 --trainable_scopes {head}"


def test_the_table_has_mean_and_range_of_the_accuracy_and_the_time_as_a_multiple_of_the_yardsticks():
    rows = {YARDSTICK: "--train_steps 250", "few": "--train_steps 9", "not yet trained": ""}
    results = [
        Result(YARDSTICK, "--train_steps 250", 1, 0.9, 0.3, 100.0),
        Result(YARDSTICK, "--train_steps 250", 2, 0.9, 0.3, 50.0),
        Result("few", "--train_steps 9", 1, 0.8, 0.3, 30.0),
        Result("few", "--train_steps 9", 2, 0.7, 0.3, 20.0),
        Result("few", "--train_steps 8", 1, 0.1, 0.3, 1.0),
    ]
    assert finetuning.table(rows, results).splitlines()[2:] == [
        f"| {YARDSTICK} | 0.900 | 0.900 to 0.900 | 75 | 1.00 | `--train_steps 250` |",
        "| few | 0.750 | 0.700 to 0.800 | 25 | 0.35 | `--train_steps 9` |",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nonsense"], "unknown row: nonsense"), (["--row", "name--flag"], "is not 'NAME: FLAGS'")],
)
def test_a_row_that_is_none_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        finetuning.main([*arguments, "--images", "photos", "--output_dir", "out"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_each_row_is_made_of_flags_of_training():
    table = flags.of_command(flags.TRAIN)
    parser = command_line.Parser("train_estimator", "")
    parser.add_flags(table)
    for row in ROWS.values():
        parser.parse_flags(table, row.replace("{head}", "MobilenetV1/Logits").split())


@pytest.mark.slow
def test_rows_are_trained_and_scored_and_a_second_call_adds_what_is_missing(image_folder, tmp_path, capsys):
    shared = ["--images", str(image_folder), "--output_dir", str(tmp_path), "--build_flags", "--max_side 12", *SMALL]
    finetuning.main([*shared, "--row", ROW, "--seeds", "1"])
    assert manifest.read(str(tmp_path / "data")).downscaled.max_side == 12
    first = json.loads((tmp_path / finetuning.RESULTS).read_text())
    finetuning.main([*shared, "--row", ROW, "--seeds", "2"])
    second = json.loads((tmp_path / finetuning.RESULTS).read_text())
    assert second[:1] == first
    assert [(entry["row"], entry["seed"]) for entry in second] == [("two steps", 1), ("two steps", 2)]
    assert all(0 <= entry["accuracy"] <= 1 < entry["seconds"] for entry in second)
    assert "| two steps |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds results of other settings"):
        finetuning.main([*shared, "--row", ROW, "--batch_size", "2"])


@pytest.mark.slow
def test_a_training_that_fails_ends_the_measurement_with_its_message(image_folder, tmp_path):
    shared = ["--images", str(image_folder), "--output_dir", str(tmp_path), *SMALL]
    with pytest.raises(SystemExit, match="trainable_scopes"):
        finetuning.main([*shared, "--row", "wrong: --trainable_scopes NoSuchScope"])
    assert not Path(tmp_path, finetuning.RESULTS).exists()
