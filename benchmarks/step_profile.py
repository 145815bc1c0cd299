"""Where a training step's time goes, from the traces that --profile records: python -m benchmarks.step_profile DIR..

Each DIR is the --model_dir of a training; several traces of one network, as name=DIR,DIR, count together. Prints a
table and, with --picture FILE.png, draws it beside a timeline of the threads of the last one's first trace.
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
    name: str
    kind: str
    start: float
    milliseconds: float


@dataclass(slots=True)
class Trace:
    """What a trace says of its steps.

    Attributes:
        steps: start and length of each, in ms.
        waits: how long each waited for its batch, in ms.
        python: how long the loop did something else than to run the step, in ms, of each.
        operations: of all threads.
    """

    steps: list[tuple[float, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    python: list[float] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


def read(model_dir: str) -> Trace:
    """The newest trace in a training's folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    files = sorted(Path(model_dir).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise SystemExit(f"no profile in {model_dir}: train with --profile STEP")
    trace = Trace()
    events = list(_events(xplane_pb2.XSpace.FromString(files[-1].read_bytes())))
    for thread, name, start, length in events:
        if name == "train":
            trace.steps.append((start, length))
        elif (found := _OPERATION.fullmatch(name)) and not found[2].endswith("PartitionedCall"):
            kind = kind_of(thread, found[1], found[2])
            trace.operations.append(Operation(thread, name, kind, start, length))
    for begin, of_step in trace.steps:
        within = [(name, length) for _, name, start, length in events if begin <= start < begin + of_step]
        trace.waits.append(sum(length for name, length in within if name == "IteratorGetNextOp::DoCompute"))
        trace.python.append(of_step - sum(length for name, length in within if name == "EagerExecute"))
    return trace


def milliseconds(traces: Sequence[Trace]) -> dict[str, float]:
    """Kind of operation -> time of threads per step.

    Of each operation, the median over all times that it was run counts: another process that takes the core away
    makes some of them longer.
    """
    lengths: dict[tuple[str, str], list[float]] = {}
    for trace in traces:
        for operation in trace.operations:
            lengths.setdefault((operation.kind, operation.name), []).append(operation.milliseconds)
    steps = sum(len(trace.steps) for trace in traces)
    totals = dict.fromkeys(KINDS, 0.0)
    for (kind, _), of_operation in lengths.items():
        totals[kind] += statistics.median(of_operation) * len(of_operation) / steps
    return totals


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
    """A Markdown table of each network: medians over the steps of its traces, and of its operations."""
    columns = list(traces.values())
    rows = [
        ("a step, from end to end", [[length for _, length in trace.steps] for trace in _all(columns)]),
        ("the step waits for its batch", [trace.waits for trace in _all(columns)]),
        ("Python between two updates", [trace.python for trace in _all(columns)]),
    ]
    lines = [f"| ms | {' | '.join(traces)} |", "|---" * (len(traces) + 1) + "|"]
    for name, of_traces in rows:
        cells = [f"{statistics.median(values):.1f}" for values in of_traces]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for kind in KINDS:
        cells = []
        for of_net in columns:
            totals = milliseconds(of_net)
            cells.append(f"{totals[kind]:.1f} ({totals[kind] / sum(totals.values()):.0%})")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _all(columns: Sequence[list[Trace]]) -> list[Trace]:
    """Of each network, the steps of its traces as one."""
    merged = []
    for traces in columns:
        one = Trace()
        for trace in traces:
            one.steps += trace.steps
            one.waits += trace.waits
            one.python += trace.python
        merged.append(one)
    return merged


def draw(traces: dict[str, list[Trace]], file: str) -> None:
    """The shares of each network, and the threads of two steps of the last one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained", dpi=110)
    shares, timeline = figure.subplots(2, height_ratios=[1, 1.6])
    left = [0.0] * len(traces)
    totals = [milliseconds(of_net) for of_net in traces.values()]
    for kind, colour in zip(KINDS, _COLOURS, strict=True):
        widths = [100 * of_net[kind] / sum(of_net.values()) for of_net in totals]
        shares.barh(list(traces), widths, left=left, color=colour, label=kind)
        left = [total + width for total, width in zip(left, widths, strict=True)]
    shares.invert_yaxis()
    shares.set_xlim(0, 100)
    shares.set_xlabel("% of the time that threads spend in operations")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)

    name, (trace, *_) = list(traces.items())[-1]
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
