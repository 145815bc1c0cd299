"""Accuracy and time of fine-tuning: named sets of flags, trained with several seeds through the real command lines.

    python -m benchmarks.finetuning --images photos/ --checkpoint_path mobilenet_v1_1.0_224.ckpt --output_dir build/pets

Half of the images are held out. Each row is trained in a process of its own with each seed, one seed after the other,
so that noise on the machine affects all rows alike. `evaluate` scores the exported model on the held-out half.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tf_image_classification import storage

YARDSTICK = "250 plain steps"
_ADAM = "--optimizer adam --opt_epsilon 1e-8 --learning_rate_decay_type fixed"
_HEAD_ONLY = f"--trainable_scopes {{head}} {_ADAM} --learning_rate 1e-3 --train_steps 150"
_ALL_VARIABLES = f"{_ADAM} --learning_rate 1e-4"
# Name -> training flags, besides those that all rows share (see `_command`). {head} is the network's head scope.
ROWS = {
    YARDSTICK: f"{_ALL_VARIABLES} --train_steps 250",
    "head only": _HEAD_ONLY,
    "all variables": f"{_ALL_VARIABLES} --train_steps 100",
    "the flags' defaults": "--train_steps 100",
    "head only, original": f"{_HEAD_ONLY} --batch_norm original",
    "all variables, original": f"{_ALL_VARIABLES} --train_steps 100 --batch_norm original",
    "the flags' defaults, original": "--train_steps 100 --batch_norm original",
    "--recipe finetune": "--recipe finetune",
}
RESULTS = "results.json"


class Result(NamedTuple):
    """What one training came to.

    Attributes:
        flags: the row's, as they were given.
        accuracy, loss: of the exported model on the held-out images.
        seconds: from the start of the training's process to its end.
    """

    row: str
    flags: str
    seed: int
    accuracy: float
    loss: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what has no result yet and prints the table; a run that was broken off continues where it was.

    Args:
        argv: the arguments; default `sys.argv[1:]`.
    """
    arguments, rows = _parse(argv)
    data = os.path.join(arguments.output_dir, "data")
    _check_settings(arguments)
    if not os.path.isdir(data):
        given = ["--train_metadata", arguments.images, "--eval_fraction", "0.5", *shlex.split(arguments.build_flags)]
        _run("build_tfrecords", *given, "--output_dir", data)
    results = _read(arguments.output_dir)
    for seed in range(1, arguments.seeds + 1):
        for name, flags in rows.items():
            if (name, flags, seed) in {result[:3] for result in results}:
                continue
            results.append(_measure(arguments, data, name, flags, seed))
            storage.write_text(
                os.path.join(arguments.output_dir, RESULTS),
                json.dumps([result._asdict() for result in results], indent=1) + "\n",
            )
            print(f"{name}, seed {seed}: accuracy {results[-1].accuracy:.4f}, {results[-1].seconds:.0f} s", flush=True)
    print("\n" + table(rows, [result for result in results if result.seed <= arguments.seeds]))


def table(rows: Mapping[str, str], results: Sequence[Result]) -> str:
    """The results as a Markdown table, a line per row: mean and range of the accuracy, time, flags.

    Args:
        rows: name -> flags, in the order of the lines.
        results: those of other rows are left out.
    """
    lines = [
        f"| row | accuracy | range | seconds | time of {YARDSTICK} | flags |",
        "|---|---|---|---|---|---|",
    ]
    seconds = {(result.row, result.flags, result.seed): result.seconds for result in results}
    for name, flags in rows.items():
        of_row = [result for result in results if (result.row, result.flags) == (name, flags)]
        if not of_row:
            continue
        accuracies = [result.accuracy for result in of_row]
        yardsticks = {result.seed: seconds.get((YARDSTICK, rows.get(YARDSTICK, ""), result.seed)) for result in of_row}
        ratios = [result.seconds / yardstick for result in of_row if (yardstick := yardsticks[result.seed])]
        lines.append(
            f"| {name} | {statistics.mean(accuracies):.3f} | {min(accuracies):.3f} to {max(accuracies):.3f} "
            f"| {statistics.median(result.seconds for result in of_row):.0f} "
            f"| {f'{statistics.median(ratios):.2f}' if ratios else '-'} | `{flags}` |"
        )
    return "\n".join(lines)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, str]]:
    """The arguments, and the rows to train: name -> flags."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.finetuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="NAME", help=f"rows of the table: {'; '.join(ROWS)} (default: all)")
    parser.add_argument("--row", action="append", default=[], metavar="'NAME: FLAGS'", help="a row of your own")
    parser.add_argument("--images", required=True, help="folder of images, one sub-folder per class")
    parser.add_argument("--build_flags", default="", help="further flags of build_tfrecords, such as '--max_side 256'")
    parser.add_argument("--checkpoint_path", help="pretrained weights (default: from scratch)")
    parser.add_argument("--model_name", default="mobilenet_v1", help="default: %(default)s")
    parser.add_argument("--image_size", type=int, default=160, help="default: %(default)s")
    parser.add_argument("--batch_size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row (default: %(default)s)")
    parser.add_argument("--output_dir", required=True, help=f"data, models and {RESULTS}")
    arguments = parser.parse_args(argv)
    own = dict(row.partition(": ")[::2] for row in arguments.row)
    if incomplete := [name for name, flags in own.items() if not flags]:
        parser.error(f"--row '{incomplete[0]}' is not 'NAME: FLAGS'")
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}; expected {'; '.join(ROWS)}")
    named = arguments.rows or ([] if own else ROWS)
    return arguments, {name: ROWS[name] for name in named} | own


def _check_settings(arguments: argparse.Namespace) -> None:
    """Ends the program if the folder holds results of other images, weights or sizes; else records these."""
    names = ("images", "build_flags", "checkpoint_path", "model_name", "image_size", "batch_size")
    settings = {name: getattr(arguments, name) for name in names}
    path = Path(arguments.output_dir, "settings.json")
    if path.exists() and json.loads(path.read_text()) != settings:
        sys.exit(f"{arguments.output_dir} holds results of other settings, see {path}: give another --output_dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1) + "\n")


def _read(folder: str) -> list[Result]:
    path = Path(folder, RESULTS)
    return [Result(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def _measure(arguments: argparse.Namespace, data: str, name: str, flags: str, seed: int) -> Result:
    """Trains a row with a seed, and scores the exported model."""
    folder = os.path.join(arguments.output_dir, "run")
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    _run("train_estimator", *_training_flags(arguments, data, folder, flags, seed))
    seconds = time.perf_counter() - started
    evaluation = os.path.join(folder, "evaluation")
    _run("evaluate", "--model", os.path.join(folder, "export"), "--eval_metadata", data, "--output_dir", evaluation)
    metrics = json.loads(Path(evaluation, "metrics.json").read_text())
    return Result(name, flags, seed, metrics["accuracy"], metrics["loss"], seconds)


def _training_flags(arguments: argparse.Namespace, data: str, folder: str, flags: str, seed: int) -> list[str]:
    """The command line of a training; a row's flags come last, and win."""
    from tf_image_classification import nets

    head = ",".join(nets.NETS[arguments.model_name].head_scopes)
    shared: dict[str, Any] = {
        "train_metadata": data,
        "eval_metadata": data,
        "model_dir": folder,
        "model_name": arguments.model_name,
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "seed": seed,
    }
    if arguments.checkpoint_path:
        shared |= {"checkpoint_path": arguments.checkpoint_path, "checkpoint_exclude_scopes": head}
    words = shlex.split(flags.replace("{head}", head))
    given = {word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    if "estimator" in given:
        del shared["model_name"]
    return [f"--{name}={value}" for name, value in shared.items() if name not in given] + words


def _run(step: str, *arguments: str) -> None:
    """Runs a command of the framework; what it prints is shown only if it fails.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", f"tf_image_classification.{step}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
