"""Trainings on clusters go on to their last step, whatever is killed and whenever."""

from __future__ import annotations

import signal

import pytest

from tests.training import cluster_faults

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("roles", [cluster_faults.SYNCHRONOUS, cluster_faults.ASYNCHRONOUS], ids=["sync", "async"])
def test_a_training_whose_tasks_are_killed_ends_with_the_model_of_an_undisturbed_one(
    tmp_path, built_data, number, roles
):
    trainings = cluster_faults.rounds(2, 3, number, tmp_path, built_data.folder, roles)
    sent = [fault for faults in trainings for fault in faults]
    assert [fault.number for fault in sent] == [number] * 2
    for fault in sent:
        ends = [seconds for seconds, code in fault.noticed.values() if code == 138]
        assert all(seconds < 60 for seconds in ends), cluster_faults.table(sent, roles)
