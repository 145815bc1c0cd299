from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import step_profile


def write(folder: Path) -> str:
    """A trace of two steps of 10 ms."""
    events = {
        "python": [("train", 0, 10), ("EagerExecute", 1, 8), ("train", 10, 10), ("EagerExecute", 11, 9)],
        "tf_data_iterator_get_next/1": [
            ("IteratorGetNextOp::DoCompute", 1, 2),
            ("IteratorGetNextOp::DoCompute", 11, 3),
        ],
        "tf_Compute/1": [
            ("net/convolution:_MklNativeConv2D", 3, 2),
            ("gradient_tape/net/Conv2DBackpropInput:Conv2DBackpropInput", 5, 1),
            ("net/norm:FusedBatchNormV3", 13, 0.5),
            ("rmsprop/sub_1:Sub", 14, 0.25),
            ("Mean:Mean", 15, 0.25),
            ("StatefulPartitionedCall:StatefulPartitionedCall", 3, 9),
        ],
        "tf_data_private_threadpool/1": [("case/DecodeJpeg:DecodeJpeg", 2, 3), ("ResizeBilinear:ResizeBilinear", 5, 1)],
    }
    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/host:CPU")
    for thread, of_thread in events.items():
        line = plane.lines.add(name=thread, timestamp_ns=5)
        for name, start, length in of_thread:
            number = len(plane.event_metadata) + 1
            plane.event_metadata[number].name = name
            line.events.add(metadata_id=number, offset_ps=int(start * 1e9), duration_ps=int(length * 1e9))
    file = folder / "plugins" / "profile" / "2030_01_01" / "host.xplane.pb"
    file.parent.mkdir(parents=True)
    file.write_bytes(space.SerializeToString())
    return str(folder)


def test_the_time_of_a_step_is_split_by_kind_and_drawn(tmp_path, capsys):
    picture = tmp_path / "profile.png"
    step_profile.main([f"net={write(tmp_path / 'a')}", "--picture", str(picture)])
    assert capsys.readouterr().out.splitlines() == [
        "| ms | net |",
        "|---|---|",
        "| a step, from end to end | 10.0 |",
        "| the step waits for its batch | 2.5 |",
        "| Python between two updates | 1.5 |",
        "| decoding of JPEGs | 1.5 (38%) |",
        "| other input | 0.5 (12%) |",
        "| convolutions, forward | 1.0 (25%) |",
        "| convolutions, backward | 0.5 (12%) |",
        "| batch normalisation | 0.2 (6%) |",
        "| optimizer | 0.1 (3%) |",
        "| other operations of the step | 0.1 (3%) |",
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_profile_is_said(tmp_path):
    with pytest.raises(SystemExit, match="train with --profile STEP"):
        step_profile.main([str(tmp_path)])
