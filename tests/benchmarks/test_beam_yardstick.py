"""The build on Apache Beam that `make bench` compares with, where Beam is installed: `make test-beam` runs it."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks import beam
from tests.build_tfrecords.support import digests, pictures
from tf_image_classification import build_tfrecords

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: make test-beam installs it")


def test_it_builds_the_data_set_of_this_machine_for_each_line_that_comes_in(tmp_path):
    images = str(pictures(tmp_path / "photos", {"cat": 20, "dog": 20}))
    build_tfrecords.build(images, str(tmp_path / "local"))
    with beam.direct_runner(sys.executable, images, str(tmp_path / "beam")) as work:
        for _ in range(2):
            work()
            assert digests(tmp_path / "beam") == digests(tmp_path / "local")
            os.unlink(tmp_path / "beam" / "labels.txt")


def test_its_failure_ends_the_measurement(tmp_path):
    with (
        beam.direct_runner(sys.executable, str(tmp_path / "none"), str(tmp_path / "beam")) as work,
        pytest.raises(SystemExit, match="ended with 1"),
    ):
        work()
