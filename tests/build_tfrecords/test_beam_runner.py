"""What --runner is refused with, and where shards end; tests/build_tfrecords/test_beam.py builds with it."""

from __future__ import annotations

import functools
import importlib.util
import os
import random
from dataclasses import replace

import pytest

from tests.build_tfrecords import records
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import __main__ as command
from tf_image_classification.build_tfrecords import beam_messages, local, shards
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.build_tfrecords.signature import Look
from tf_image_classification.build_tfrecords.worker_messages import (
    ChunkImage,
    ClassLabel,
    ImageChunk,
    PartResult,
    WrittenImage,
)
from tf_image_classification.data.sources import ImageRoots, Rejected
from tf_image_classification.errors import FlagError


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--workers", "2"), "--workers has no effect beside --runner"),
        (("--check",), "--check has no effect beside --runner"),
    ],
)
def test_flags_without_effect_beside_a_runner_are_refused(words, problem, image_folder, tmp_path):
    with pytest.raises(FlagError, match=problem):
        command._command(
            [
                *("--train_metadata", str(image_folder), "--output_dir", str(tmp_path / "data")),
                *("--runner", "DirectRunner", *words),
            ]
        )


def test_options_of_beam_need_a_runner(image_folder, tmp_path):
    with pytest.raises(FlagError, match="Unknown flag --temp_location"):
        command._command(["--train_metadata", str(image_folder), "--temp_location", "gs://bucket/temp"])


def test_a_runner_without_beam_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FlagError, match=r"needs Apache Beam, which is not installed. .*requirements/beam.txt"):
        BeamRunner("FlinkRunner").check_options()


def test_a_runner_is_refused_where_tfrecords_are_only_checked(tmp_path):
    path = records.write(tmp_path / "a.tfrecord", [records.slim(0, "cat"), records.slim(1, "dog")])
    with pytest.raises(FlagError, match="--runner has no effect: TFRecords are only checked and listed"):
        build_tfrecords.build(path, str(tmp_path / "data"), eval_metadata=path, runner=BeamRunner("DirectRunner"))


def test_dataflow_is_refused_what_is_on_this_machine(image_folder, tmp_path):
    with pytest.raises(FlagError, match="Dataflow's workers do not have the disk of this machine"):
        build_tfrecords.build(str(image_folder), "gs://bucket/data", runner=BeamRunner("DataflowRunner"))


def test_planned_shards_are_those_that_are_written(tmp_path):
    draw = random.Random(1)
    for number in range(50):
        parts = [[draw.randrange(1, 40) for _ in range(draw.randrange(8))] for _ in range(draw.randrange(1, 9))]
        writer = shards.ShardWriter(
            str(tmp_path), f"split{number}", 100, functools.partial(local.done_here, shards.place)
        )
        first = {}
        for index, lengths in enumerate(parts):
            (tmp_path / "part").write_bytes(os.urandom(sum(lengths)))
            writer.append(str(tmp_path / "part"), lengths)
            first |= {(index, record): length for record, length in enumerate(lengths)}
        planned = shards.plan(enumerate(parts), 100)
        assert [(shard.examples, shard.bytes) for shard in planned] == [
            (shard.examples, shard.bytes) for shard in writer.finish()
        ]
        places, examples = list(first), 0
        for shard in planned:
            assert shard.first == places[examples]
            examples += shard.examples


def test_chunks_and_results_survive_json_in_one_line_each(tmp_path):
    roots = ImageRoots(None, str(tmp_path))
    label = ClassLabel(3, "an\nodd\rname \u2028 \udcff")
    chunk = ImageChunk("train", ("label",), (ChunkImage("/a/\udce9.png", "\udce9.png", (label,), True),), roots)
    other = replace(chunk, split="eval")
    result = PartResult(
        [WrittenImage(9, 2, 3, "png", False, 0, None), Rejected("/b\n", "corrupt")],
        [Look(b"\x00\n", True, b"\xff" * 384)],
    )
    chunks = beam_messages.Chunks()
    lines = [chunks.to_json(number, one) for number, one in enumerate((chunk, other, chunk))]
    assert len(chunks.common) == 2
    written = [beam_messages.result_to_json(line, result) for line in lines]
    assert b"\n".join(written).split(b"\n") == written
    read = [beam_messages.result_from_json(line) for line in written]
    assert [part for _, part in read] == [result] * 3
    assert [chunks.from_json(line) for line, _ in read] == [(0, chunk), (1, other), (2, chunk)]
