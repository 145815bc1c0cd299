"""Several replicas compute what one does: gradient clipping, the weight average, re-estimated statistics."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np


def test_two_replicas_update_average_and_re_estimate_as_one() -> None:
    command = [sys.executable, "-m", "tests.training.two_replicas"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    results = json.loads(answer.stdout.splitlines()[-1])
    one, two = results["one"], results["two"]
    assert one["images"] == two["images"] == 16
    for name in ("losses", "weights", "averages"):
        for left, right in zip(one[name], two[name], strict=True):
            np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-6, err_msg=name)
    assert not np.allclose(one["weights"][0], one["averages"][0])
    # The kernel's variance is unbiased, N / (N - 1), with the N values of a replica: 64 of 4x4 positions, not 128.
    (mean, variance), (mean_of_two, variance_of_two) = one["statistics"], two["statistics"]
    np.testing.assert_allclose(mean_of_two, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(variance_of_two) * 63 / 64, np.array(variance) * 127 / 128, rtol=1e-3)
