"""Trainings on clusters go on to the same model, whatever is killed and whenever."""

from __future__ import annotations

import signal

import pytest

from tests.training import cluster_faults


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_whose_tasks_are_killed_ends_with_the_model_of_an_undisturbed_one(tmp_path, built_data, number):
    sent = [fault for faults in cluster_faults.rounds(2, 3, number, tmp_path, built_data.folder) for fault in faults]
    assert [fault.number for fault in sent] == [number] * 2
    for fault in sent:
        assert all(seconds < 60 for seconds, code in fault.noticed.values() if code == 138), cluster_faults.table(sent)
