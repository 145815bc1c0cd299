"""What a step prints, on the screen and in its log."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.local.screen import Screen
from pipelines.local.step_output import StepOutput
from pipelines.local.subprocess_runner import run_process

RECORD = "13:18:21 I {}\n"
INPUT = '[KFP Executor 2026-11-28 13:18:21,584 INFO]: Got executor_input:\n{\n    "inputs": {}\n}\n'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Printed:
    """A step's output, after it ended: what the screen shows, what the log holds, and why the step failed."""

    def __init__(self, folder: Path, *pieces: str | bytes, stream: io.StringIO | None = None, verbose: bool = False):
        stream = stream or io.StringIO()
        output = StepOutput(folder / "train.log", Screen(stream), verbose=verbose)
        for piece in pieces:
            output.write(piece.encode() if isinstance(piece, str) else piece)
        output.close()
        self.screen, self.log = stream.getvalue(), (folder / "train.log").read_text()
        self.explanation = output.explanation()


@pytest.fixture
def printed(tmp_path: Path) -> Callable[..., Printed]:
    return lambda *pieces, **options: Printed(tmp_path, *pieces, **options)


def test_the_screen_shows_the_frameworks_records_and_the_log_all(printed):
    chatter = "I0000 00:00:1795871898.440508   27616 port.cc:153] oneDNN custom operations are on.\n"
    pieces = [
        INPUT,
        chatter,
        RECORD.format("Training from scratch"),
        chatter,
        "13:18:22 W A record, of a command\n",
    ]
    done = printed(*pieces)
    assert done.screen == "  13:18:21 I Training from scratch\n  13:18:22 W A record, of a command\n"
    assert done.log == "".join(pieces)


@pytest.mark.parametrize("verbose", [False, True])
def test_the_screen_acts_on_nothing_that_a_step_prints(printed, verbose):
    hostile = "\x1b[2J\x1b]8;;http://x\x07\x9b2J\u202e"
    pieces = [RECORD.format(f"Class {hostile}"), f"chatter {hostile}\n", f"\rbar {hostile}", f"\nerror: {hostile}\n"]
    screen = printed(*pieces, stream=Terminal(), verbose=verbose).screen.replace("\r\x1b[K", "")
    assert {c for c in screen if not c.isprintable()} == {"\n"}
    assert "Class \\x1b[2J\\x1b]8;;http://x\\x07\\x9b2J\\u202e\n" in screen


def test_indented_lines_belong_to_the_record_before_them_and_to_nothing_else(printed):
    done = printed(RECORD.format("Starting from x.ckpt\n  scope  loaded\n  Small  2"), "chatter\n  of a library\n")
    assert done.screen == "  13:18:21 I Starting from x.ckpt\n    scope  loaded\n    Small  2\n"


def test_records_of_every_checkpoint_are_for_the_log(printed):
    done = printed(RECORD.format("Saved checkpoint /runs/model.ckpt-100"))
    assert done.screen == "" and "model.ckpt-100" in done.log


def test_paths_below_the_current_folder_are_shown_from_it(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = printed(RECORD.format(f"From {tmp_path}/a to /b{tmp_path}/c"))
    assert done.screen == f"  13:18:21 I From a to /b{tmp_path}/c\n"


def test_verbose_shows_every_line(printed):
    done = printed(INPUT, verbose=True)
    assert [line[2:] for line in done.screen.splitlines()] == done.log.splitlines()
    assert done.log == INPUT


def test_an_error_paragraph_explains_a_failure(printed):
    for verbose in (False, True):
        done = printed("chatter\nerror: The checkpoint cannot be read.\nCopy it again.\n", INPUT, verbose=verbose)
        assert done.explanation == ["error: The checkpoint cannot be read.", "Copy it again."]


def test_the_last_frame_and_the_exception_explain_a_failure_without_an_error_paragraph(printed):
    frames = [line for number in range(9) for line in (f'  File "{number}.py", line 1, in f', f"    call_{number}()")]
    lines = ["Traceback (most recent call last):", *frames, "ValueError: no", "second line", "", ""]
    done = printed(RECORD.format("Training from scratch"), "\n".join(lines))  # its last line has no newline
    assert done.explanation == ['  File "8.py", line 1, in f', "    call_8()", "ValueError: no", "second line"]
    assert "call_0()" in done.log


def test_the_last_lines_explain_a_failure_that_has_no_traceback(printed):
    lines = [f"line {number}" for number in range(20)]
    assert printed("\n".join(lines) + "\n").explanation == lines[-15:]


def test_a_runners_explanation_does_not_hide_the_traceback_before_it(tmp_path):
    output = StepOutput(tmp_path / "step.log", Screen(io.StringIO()), verbose=False)
    lines = ["Traceback (most recent call last):", '  File "train.py", line 1, in train', "    x", "KeyError: 'x'"]
    output.write("\n".join([*lines, ""]).encode())
    output.fail("The container ended without writing /data")
    output.close()
    assert output.explanation() == [*lines[1:], "error: The container ended without writing /data"]


def test_a_runner_explains_a_failure_only_where_the_step_does_not(tmp_path):
    output = StepOutput(tmp_path / "step.log", Screen(io.StringIO()), verbose=False)
    output.fail("The container ended")
    output.fail("A second reason")
    assert output.explanation() == ["error: The container ended"]
    output.close()


def test_lines_and_characters_may_arrive_in_pieces(printed):
    line = RECORD.format("Klassen: Äpfel").encode()
    assert printed(*(line[i : i + 1] for i in range(len(line)))).screen == "  13:18:21 I Klassen: Äpfel\n"


def test_a_terminal_shows_a_progress_bar_in_place_and_records_above_it(printed):
    record = RECORD.format("Evaluation at step 2")
    done = printed("\rTraining: 1/9", "\rTraining: 2/9", record, "\rTraining: 9/9", "\r\n", stream=Terminal())
    shown = [line.rpartition("\r\x1b[K")[2] for line in done.screen.rstrip("\n").split("\n")]
    assert "\r\x1b[K  Training: 1/9\r\x1b[K  Training: 2/9" in done.screen
    assert shown == ["  13:18:21 I Evaluation at step 2", "  Training: 9/9"]
    assert done.log == f"{record}Training: 9/9\n"


def test_no_progress_bar_is_drawn_where_there_is_no_terminal(printed):
    assert printed("\rTraining: 1/9", "\rTraining: 9/9\n").screen == ""


@pytest.mark.parametrize(("stream", "expected"), [(Terminal(), "True True"), (io.StringIO(), "False False")])
def test_a_process_writes_to_a_terminal_where_its_output_is_shown_on_one(tmp_path, stream, expected):
    code = "import os, sys; print(sys.stdout.isatty(), sys.stderr.isatty()); sys.exit(3)"
    output = StepOutput(tmp_path / "step.log", Screen(stream), verbose=True)
    assert run_process([sys.executable, "-c", code], dict(os.environ), output) == 3
    output.close()
    assert stream.getvalue() == f"  {expected}\n"


def test_a_hint_ends_the_error_paragraph_and_is_nothing_without_one(tmp_path):
    explanations = []
    for text in ("error: A shard is missing. Received: /data/x.\n", "no paragraph\n"):
        output = StepOutput(tmp_path / "train.log", Screen(io.StringIO()), verbose=False)
        output.write(text.encode())
        output.hint("In the container there is no /data/x.")
        explanations.append(output.explanation())
        output.close()
    assert explanations == [
        ["error: A shard is missing. Received: /data/x.", "In the container there is no /data/x."],
        ["no paragraph"],
    ]
