"""What the step that launched a cluster can read of its tasks' logs."""

from __future__ import annotations

import logging
import subprocess
import sys

from tf_image_classification import task_log

ENDS_AT_ONCE = """
import logging, os, sys
from tf_image_classification import task_log
with task_log.keeping(sys.argv[1], "worker-1"):
    logging.getLogger().error("Another task of the cluster was lost")
    logging.shutdown()
    os._exit(138)
"""


def test_the_last_lines_of_a_task_are_read_once(tmp_path):
    reader = task_log.Reader(str(tmp_path), "chief-0")
    with task_log.keeping(str(tmp_path), "chief-0"):
        for number in range(150):
            logging.getLogger().error("Step %d", number)
    lines = reader.new_lines()
    assert [line.rpartition(" ")[2] for line in lines] == [str(number) for number in range(50, 150)]
    assert reader.new_lines() == []


def test_a_process_that_ends_at_once_leaves_its_last_lines(tmp_path):
    done = subprocess.run([sys.executable, "-c", ENDS_AT_ONCE, str(tmp_path)])
    assert done.returncode == 138
    assert [line.partition(" E ")[2] for line in task_log.last_lines(str(tmp_path))] == [
        "Another task of the cluster was lost"
    ]
