"""Where a training step's time goes, from the traces that --profile records: python -m benchmarks.step_profile DIR..

Each DIR is the --model_dir of a training; several traces of one network, as name=DIR,DIR, count together. Prints a
table and, with --picture FILE.png, draws it beside a timeline of the threads of the last trace.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# TensorFlow calls the event of an operation <name>:<type>.
_OPERATION = re.compile(r"([^:]+):(\w+)")
_OPTIMIZER = re.compile(r"(adadelta|adagrad|adamw?|ftrl|rmsprop|sgd)(_\d+)?/")
DECODING, INPUT = "decoding of JPEGs", "other input"
FORWARD, BACKWARD, NORM = "convolutions, forward", "convolutions, backward", "batch normalisation"
OPTIMIZER, OTHER = "optimizer", "other operations of the step"
KINDS = (DECODING, INPUT, FORWARD, BACKWARD, NORM, OPTIMIZER, OTHER)
_COLOURS = ("#e07b39", "#f2c9a8", "#3d7fd9", "#16407d", "#2fa37c", "#b25fc4", "#9aa0a6")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that a thread has run; times are in ms since the start of the trace."""

    thread: str
    kind: str
    start: float
    milliseconds: float


@dataclass(slots=True)
class Trace:
    """What a trace says of its steps.

    Attributes:
        steps: start and length of each, in ms.
        waits: how long the steps waited for their batches, in ms.
        python: how long the loop did something else than to run the step, in ms.
        operations: of all threads.
    """

    steps: list[tuple[float, float]] = field(default_factory=list)
    waits: float = 0.0
    python: float = 0.0
    operations: list[Operation] = field(default_factory=list)

    def milliseconds(self) -> dict[str, float]:
        """Kind of operation -> time of threads per step."""
        totals = dict.fromkeys(KINDS, 0.0)
        for operation in self.operations:
            totals[operation.kind] += operation.milliseconds / len(self.steps)
        return totals


def read(model_dir: str) -> Trace:
    """The newest trace in a training's folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    files = sorted(Path(model_dir).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise SystemExit(f"no profile in {model_dir}: train with --profile STEP")
    trace, of_update = Trace(), 0.0
    for thread, name, start, length in _events(xplane_pb2.XSpace.FromString(files[-1].read_bytes())):
        if name == "train":
            trace.steps.append((start, length))
        elif name == "EagerExecute":
            of_update += length
        elif name == "IteratorGetNextOp::DoCompute":
            trace.waits += length
        elif (found := _OPERATION.fullmatch(name)) and not found[2].endswith("PartitionedCall"):
            trace.operations.append(Operation(thread, kind_of(thread, found[1], found[2]), start, length))
    trace.python = sum(length for _, length in trace.steps) - of_update
    return trace


def kind_of(thread: str, name: str, type_: str) -> str:
    """The kind of an operation, of KINDS."""
    if thread.startswith("tf_data"):
        return DECODING if "DecodeJpeg" in type_ or "DecodeAndCropJpeg" in type_ else INPUT
    if "Conv" in type_:
        return BACKWARD if "Backprop" in type_ else FORWARD
    if "BatchNorm" in type_:
        return NORM
    return OPTIMIZER if _OPTIMIZER.match(name) else OTHER


def _events(space: Any) -> Iterator[tuple[str, str, float, float]]:
    """Thread, name, start and length, in ms, of each event."""
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns / 1e6 + event.offset_ps / 1e9
                yield line.name, plane.event_metadata[event.metadata_id].name, start, event.duration_ps / 1e9


def table(traces: dict[str, list[Trace]]) -> str:
    """A Markdown table: of each network, medians over its traces."""
    rows: list[tuple[str, list[str]]] = []
    columns = list(traces.values())
    lengths = [statistics.median(length for trace in of_net for _, length in trace.steps) for of_net in columns]
    rows.append(("a step, ms", [f"{length:.0f}" for length in lengths]))
    for name in ("waits", "python"):
        shares = [
            statistics.median(getattr(trace, name) / sum(length for _, length in trace.steps) for trace in of_net)
            for of_net in columns
        ]
        label = "of it, waiting for the batch" if name == "waits" else "of it, Python between two updates"
        rows.append((label, [f"{share:.1%}" for share in shares]))
    for kind in KINDS:
        rows.append((kind, [f"{share:.1%}" for share in _shares(columns, kind)]))
    lines = [f"| | {' | '.join(traces)} |", "|---" * (len(traces) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows)])


def _shares(columns: Sequence[list[Trace]], kind: str) -> list[float]:
    """Of each network, the median share of a kind in the time that threads spend in operations."""
    return [
        statistics.median(trace.milliseconds()[kind] / sum(trace.milliseconds().values()) for trace in of_net)
        for of_net in columns
    ]


def draw(traces: dict[str, list[Trace]], file: str) -> None:
    """The shares of each network, and the threads of two steps of the last trace."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained", dpi=110)
    shares, timeline = figure.subplots(2, height_ratios=[1, 1.6])
    left = [0.0] * len(traces)
    for kind, colour in zip(KINDS, _COLOURS, strict=True):
        widths = [100 * share for share in _shares(list(traces.values()), kind)]
        shares.barh(list(traces), widths, left=left, color=colour, label=kind)
        left = [total + width for total, width in zip(left, widths, strict=True)]
    shares.invert_yaxis()
    shares.set_xlim(0, 100)
    shares.set_xlabel("% of the time that threads spend in operations")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)

    name, (*_, trace) = list(traces.items())[-1]
    steps = sorted(trace.steps)[1:3]
    begin, end = steps[0][0], steps[-1][0] + steps[-1][1]
    shown = [operation for operation in trace.operations if begin <= operation.start < end]
    threads = sorted({operation.thread for operation in shown})
    for row, thread in enumerate(threads):
        of_thread = [operation for operation in shown if operation.thread == thread]
        timeline.broken_barh(
            [(operation.start - begin, operation.milliseconds) for operation in of_thread],
            (row - 0.4, 0.8),
            facecolors=[_COLOURS[KINDS.index(operation.kind)] for operation in of_thread],
        )
    for start, _ in [*steps, (end, 0.0)]:
        timeline.axvline(start - begin, color="black", linewidth=0.8)
    timeline.set_yticks(range(len(threads)), ["input" if "data" in thread else "step" for thread in threads])
    timeline.set_xlim(0, end - begin)
    timeline.set_xlabel(f"ms; two steps of {name} between the lines, a row for each thread")
    figure.savefig(file)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.step_profile", description=__doc__)
    parser.add_argument("trainings", nargs="+", metavar="[NAME=]DIR[,DIR]", help="folders with profiles")
    parser.add_argument("--picture", help="PNG file to draw to")
    arguments = parser.parse_args(argv)
    traces = {}
    for training in arguments.trainings:
        name, _, folders = training.rpartition("=")
        traces[name or Path(folders).name] = [read(folder) for folder in folders.split(",")]
    print(table(traces))
    if arguments.picture:
        draw(traces, arguments.picture)


if __name__ == "__main__":
    main()
