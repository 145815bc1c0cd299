"""Every kind of image is built as the table says."""

from __future__ import annotations

import contextlib
import csv
import io
import random
from dataclasses import dataclass

import pytest
from PIL import Image

from tests.build_tfrecords.image_files import colour, encode
from tests.build_tfrecords.image_kinds import AS_IT_IS, KINDS, TO_JPEG, Kind
from tests.conftest import REPOSITORY
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.data.sources import ReadOptions


@dataclass
class Built:
    manifest: manifest.Manifest
    examples: dict[str, tfrecord.Features]
    reasons: dict[str, list[str]]
    originals: dict[str, bytes]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("kinds")
    root = folder / "root"
    root.mkdir()
    originals = {kind.file: kind.make() for kind in KINDS if kind.make}
    for name, data in originals.items():
        (root / name).write_bytes(data)
    for split, kinds in (("train", KINDS), ("eval", KINDS[:2])):
        lines = [f"{kind.file},{kind.label}" for kind in kinds]
        (folder / f"{split}.csv").write_text(
            "\n".join([*lines, "rgb.png,two" if split == "eval" else "second.png,two"])
        )
    (root / "second.png").write_bytes(encode(colour(), "PNG"))
    (folder / "labels.txt").write_text("one\ntwo\n")
    data = build_tfrecords.build(
        str(folder / "train.csv"),
        str(folder / "data"),
        eval_metadata=str(folder / "eval.csv"),
        labels_file=str(folder / "labels.txt"),
        options=ReadOptions(image_root=str(root)),
    )
    records = [tfrecord.parse_example(record) for path in data.shard_paths("train") for record in tfrecord.read(path)]
    reasons: dict[str, list[str]] = {}
    with open(folder / "data" / "rejected.csv", newline="") as file:
        for row in csv.DictReader(file):
            reasons.setdefault(row["path"].removeprefix(f"{root}/"), []).append(row["reason"].removesuffix(f" {root}"))
    return Built(data, {record["image/filename"][0].decode(): record for record in records}, reasons, originals)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.expected], ids=lambda kind: kind.name)
def test_tensorflow_reads_what_was_built(kind: Kind, built: Built) -> None:
    import numpy as np
    import tensorflow as tf

    example = built.examples[kind.file]
    (data,), (image_format,) = example["image/encoded"], example["image/format"]
    if kind.outcome == AS_IT_IS:
        assert data == built.originals[kind.file]
    else:
        assert image_format == (b"jpeg" if kind.outcome.startswith(TO_JPEG) else b"png")
    assert Image.open(io.BytesIO(data)).format in {b"jpeg": ("JPEG", "MPO"), b"png": ("PNG",)}[image_format]

    wanted = np.asarray(kind.expected().convert("RGB"), np.int16)
    assert (example["image/height"], example["image/width"]) == ([wanted.shape[0]], [wanted.shape[1]])
    decoders = [tf.io.decode_image, tf.io.decode_jpeg if image_format == b"jpeg" else tf.io.decode_png]
    for decode in decoders if wanted.size < 1e6 else decoders[1:]:
        pixels = decode(data, channels=3).numpy()
        assert pixels.dtype == np.uint8
        assert pixels.shape == wanted.shape
        assert np.abs(pixels[::7, ::7] - wanted[::7, ::7]).mean() < 6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.expected], ids=lambda kind: kind.name)
def test_is_rejected_with_its_reason(kind: Kind, built: Built) -> None:
    assert kind.outcome.removeprefix("rejected: ") in built.reasons[kind.file]


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind.outcome == AS_IT_IS and kind.file != "large.jpg"],
    ids=lambda kind: kind.name,
)
def test_a_damaged_image_is_rejected_or_tensorflow_reads_it(kind: Kind) -> None:
    import tensorflow as tf

    whole = kind.make()
    dice = random.Random(kind.name)
    cut = [
        whole[:length]
        for length in (*range(len(whole) - 12, len(whole)), *dice.sample(range(len(whole)), min(len(whole), 40)))
    ]
    flipped = []
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] = dice.choice((0xFF, dice.randrange(256)))
        flipped.append(bytes(damaged))
    if "MPO" not in kind.name:  # whose further pictures may be cut off
        for data in cut:
            with pytest.raises(images.RejectedImage):
                images.prepare(data)
    for data in cut + flipped:
        with contextlib.suppress(images.RejectedImage):
            image = images.prepare(data)
            if image.height * image.width < 1e6:
                assert tf.io.decode_image(image.data, channels=3).shape == (image.height, image.width, 3)


def test_the_manifest_accounts_for_every_image(built: Built) -> None:
    split = built.manifest.splits["train"]
    rejected = [kind for kind in KINDS if not kind.expected]
    assert split.images == len(KINDS) + 1
    assert split.rejected == len(rejected) == sum(len(reasons) for reasons in built.reasons.values())
    assert split.examples == split.images - split.rejected == len(built.examples)
    assert sum(built.manifest.rejected_reasons.values()) == split.rejected
    assert split.class_counts == {"label": {"one": split.examples - 1, "two": 1}}
    assert built.manifest.reencoded == sum(kind.outcome.startswith("re-encoded") for kind in KINDS)


def test_the_documentation_shows_this_table() -> None:
    page = (REPOSITORY / "docs" / "data.md").read_text()
    missing = [row for row in table() if row not in page]
    assert not missing, "docs/data.md lacks these lines:\n" + "\n".join(missing)


def table() -> list[str]:
    """The rows as Markdown."""
    rows = [f"| {kind.name} | {kind.outcome} |" for kind in KINDS]
    return ["| an image that is | result |", "|---|---|", *rows]
