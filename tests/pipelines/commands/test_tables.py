from __future__ import annotations

import datetime as dt

from pipelines.backends.base import Run, State, Submission, TaskStatus
from pipelines.commands import tables

HOSTILE = "cat\x1b[2J\x1b]8;;http://x\x07\x9b2J\u202e"


def test_what_a_run_names_is_escaped_where_a_terminal_would_act_on_it():
    gate = TaskStatus("gate", State.SUCCEEDED, error=HOSTILE, outputs={"reason": f"lowest class recall ({HOSTILE})"})
    submission = Submission(HOSTILE, {}, {"labels_file": HOSTILE}, f"gs://{HOSTILE}")
    now = dt.datetime.now(dt.UTC)
    shown = Run(HOSTILE, State.FAILED, HOSTILE, now, now, submission, (gate,), HOSTILE, HOSTILE, HOSTILE)
    printed = tables.run(shown) + tables.runs([shown]) + tables.outputs(shown.tasks)
    assert {c for c in printed if not c.isprintable()} == {"\n"}
    assert printed.count(r"cat\x1b[2J\x1b]8;;http://x\x07\x9b2J\u202e") >= 9
