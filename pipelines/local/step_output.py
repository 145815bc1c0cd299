"""The output of one step: all of it in its log, and what is meant for a person on the screen."""

from __future__ import annotations

import codecs
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pipelines.local.screen import Screen

INDENT = "  "

# A record of the framework, as command_line formats it, and the beginning of one of KFP's executor.
_RECORD = re.compile(r"\d\d:\d\d:\d\d [DIWEC] (.*)")
_KFP_RECORD = "[KFP Executor "
# Records that repeat what others say: each checkpoint, and the totals of a progress that was too short to be shown.
_ROUTINE = re.compile(r"Saved checkpoint |\w+: [\d,]+ \w+ in [\d.]+ s$")
_TAIL_LINES = 15
_WIDTH = 110  # of a paragraph, in characters
_FRAME = '  File "'  # begins a frame of a traceback


class StepOutput:
    """Takes a step's output in pieces, as they come. Not for several threads.

    The screen shows the framework's records, with the indented lines that follow them. An error paragraph is kept for
    the end. Everything is in the log.

    Args:
        log: file to write, in a folder that exists.
        verbose: show every line.
    """

    def __init__(self, log: Path, screen: Screen, *, verbose: bool) -> None:
        self.log = log
        self._file = log.open("w", encoding="utf-8", buffering=1)
        self._screen, self._verbose = screen, verbose
        self._lines = _LineSplitter()
        self._block = ""  # what the last line belongs to: a record to show, an error paragraph, or neither
        self._error: list[str] = []
        self._hidden: list[str] = []  # the last lines since one was shown

    @property
    def is_terminal(self) -> bool:
        """Whether the step should write as to a terminal, with progress bars."""
        return self._screen.is_terminal

    def write(self, data: bytes) -> None:
        """Logs and shows a piece of output."""
        for line, is_bar in self._lines.feed(data):
            self._take(line, is_bar)
        if bar := self._lines.unfinished_bar():
            self._screen.show_bar(f"{INDENT}{bar}")

    def close(self) -> None:
        """Takes what came last, which may lack its newline."""
        for line, is_bar in self._lines.finish():
            self._take(line, is_bar)
        self._screen.hide_bar()
        self._file.close()

    def fail(self, reason: str) -> None:
        """Adds an error paragraph, unless the step has written one itself.

        The last lines that only the log has precede it in `explanation`: a traceback there says more than the runner.
        """
        if self._error:
            return
        last_lines = self.explanation()
        for line in textwrap.wrap(f"error: {reason}", width=_WIDTH, break_long_words=False, break_on_hyphens=False):
            self._take(line, is_bar=False)
        self._error = [*last_lines, *self._error]

    def hint(self, text: str) -> None:
        """Adds a sentence to the step's error paragraph; does nothing if it has written none."""
        if self._error:
            lines = textwrap.wrap(text, width=_WIDTH, break_long_words=False, break_on_hyphens=False)
            self._error = [*self._error, *lines]

    def explanation(self) -> list[str]:
        """Why the step failed: its error paragraph; else the last lines that only the log has.

        Of a traceback these are its last frame and the exception.
        """
        if self._error:
            return self._error
        frames = [index for index, line in enumerate(self._hidden) if line.startswith(_FRAME)]
        lines = self._hidden[frames[-1] if frames else 0 :]
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    def _take(self, line: str, is_bar: bool) -> None:
        self._file.write(f"{line}\n")
        if is_bar:
            self._screen.hide_bar()
            if self._screen.is_terminal:
                self._screen.line(INDENT + line)
            return
        text = self._shown(line)
        if self._verbose:
            text = line
        if text is None:
            self._hidden = [*self._hidden, line][-_TAIL_LINES:]
        else:
            self._hidden = []
            self._screen.line(INDENT + relative_paths(text))

    def _shown(self, line: str) -> str | None:
        """The line as the screen shows it; None for the log only."""
        if record := _RECORD.match(line):
            self._block = "" if _ROUTINE.match(record[1]) else "record"
            return line if self._block else None
        if line.startswith("error: "):
            self._block, self._error = "error", []
        elif line.startswith(_KFP_RECORD):
            self._block = ""
        if self._block == "error" and line:
            self._error.append(line)
            return None
        if self._block == "record" and line.startswith(" "):
            return line
        self._block = ""
        return None


class _LineSplitter:
    """Bytes to lines as a terminal leaves them: of a line that was redrawn, what was drawn last."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> Iterator[tuple[str, bool]]:
        """The lines that end in `data`, and for each whether it is a progress bar that will not be redrawn."""
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            yield _last_drawn(line)
        if bar := self.unfinished_bar():
            self._rest = f"\r{bar}"

    def unfinished_bar(self) -> str:
        """What follows the last carriage return of a line that has not ended: a progress bar; '' for none."""
        return self._rest.rpartition("\r")[2] if "\r" in self._rest else ""

    def finish(self) -> Iterator[tuple[str, bool]]:
        """The line that has not ended, if there is one."""
        if self._rest.strip():
            yield _last_drawn(self._rest)
        self._rest = ""


def _last_drawn(line: str) -> tuple[str, bool]:
    _, redrawn, text = line.rstrip("\r").rpartition("\r")
    # A record that is logged while a bar is drawn begins where the bar ends.
    if redrawn and (record := _RECORD.search(text)):
        return text[record.start() :], False
    return text, bool(redrawn)


def relative_paths(text: str) -> str:
    """The text with the paths below the current folder relative to it."""
    here = os.getcwd()
    return text if here == "/" else re.sub(rf"(?<![\w/.:-]){re.escape(here)}/", "", text)
