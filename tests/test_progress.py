from __future__ import annotations

import contextlib
import logging
import os
import pty
import subprocess
import sys
import termios

from tf_image_classification import progress

WORK = """
from tf_image_classification import progress
with progress.track("Counting", 30, "sheep") as advance:
    for _ in range(3):
        advance(10)
"""


def test_without_a_terminal_lines_are_logged_at_intervals(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LOG_EVERY_SECS", 0.0)
    with caplog.at_level(logging.INFO), progress.track("Counting", 2000, "sheep") as advance:
        advance(1500)
    assert caplog.messages[0].startswith("Counting: 1,500 of 2,000 (75%) sheep, ")
    assert caplog.messages[-1].startswith("Counting: 1,500 sheep in ")


def test_fast_work_logs_one_line(caplog):
    with caplog.at_level(logging.INFO), progress.track("Counting", None, "sheep") as advance:
        for _ in range(1000):
            advance(1)
    assert [message.split(" in ")[0] for message in caplog.messages] == ["Counting: 1,000 sheep"]


def test_on_a_terminal_there_is_a_bar():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    subprocess.run([sys.executable, "-c", WORK], stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal that is gone ends
        while part := os.read(ours, 10000):
            shown += part
    os.close(ours)
    assert b"Counting: 100%" in shown
    assert b"30/30" in shown
