"""The demonstration of a cluster that loses a worker."""

from __future__ import annotations

import pytest

from tests.standin import demo_cluster, demo_picture


@pytest.mark.slow
def test_the_run_goes_on_from_the_last_checkpoint_and_finishes(tmp_path):
    happened = demo_cluster.simulate(tmp_path)
    events = [(event.task, event.what) for event in happened]
    assert ("worker:0", "Another task of the cluster was lost") in events
    assert any(task == "worker:0" and what.startswith("continues from the checkpoint of step") for task, what in events)
    assert [what for task, what in events if task == "worker:1" and what.startswith("ends")] == [
        "ends with 137: killed",
        "ends with 0: done",
    ]
    demo_picture.write(happened, str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
