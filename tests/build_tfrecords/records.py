"""TFRecords as other programs write them, and data sets of them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tf_image_classification import build_tfrecords
from tf_image_classification.data import manifest, tfrecord

Example = dict[str, tfrecord.FeatureValue]


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, kind)
    return file.getvalue()


def slim(label: float, text: str = "", **more: tfrecord.FeatureValue) -> Example:
    features = {"image/encoded": picture(), "image/class/label": label, **more}
    return features | ({"image/class/text": text.encode()} if text else {})


def original(**labels: float) -> Example:
    return {"image_bytes": picture(), **labels}


def write(path: Path, examples: Sequence[Example | bytes], *, zipped: bool = False) -> str:
    """Writes examples, or serialised ones."""
    records = (example if isinstance(example, bytes) else tfrecord.encode_example(example) for example in examples)
    data = b"".join(map(tfrecord.frame, records))
    path.write_bytes(gzip.compress(data) if zipped else data)
    return str(path)


def build(
    tmp_path: Path, train: Sequence[Example], evaluation: Sequence[Example] | None = None, **options: object
) -> manifest.Manifest:
    """A data set of one file per split."""
    paths = [write(tmp_path / name, examples) for name, examples in (("train", train), ("eval", evaluation or train))]
    return build_tfrecords.build(paths[0], str(tmp_path / "data"), eval_metadata=paths[1], **options)
