"""Four simulated weeks of a weekly schedule that retrains a model in service."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_only_new_data_is_trained_on_and_only_a_better_model_is_promoted(tmp_path):
    from tests.standin import demo_schedule

    first, same, newer, worse = demo_schedule.simulate(tmp_path)
    assert first.tasks == {"build-tfrecords": "done", "train": "done", "evaluate": "done", "register": "done"}
    assert first.passed
    assert same.tasks["build-tfrecords"] == same.tasks["train"] == "cached"
    assert same.passed and "already in service" in same.reason
    assert (newer.tasks["build-tfrecords"], newer.tasks["train"]) == ("done", "done")
    assert newer.passed
    assert worse.tasks == {"build-tfrecords": "done", "train": "done", "evaluate": "done", "register": "-"}
    assert not worse.passed and "FAILED" in worse.reason
    assert [week.in_service for week in (first, same, newer, worse)] == ["1", "1", "2", "2"]
