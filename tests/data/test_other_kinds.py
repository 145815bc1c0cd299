"""Metadata that is neither a list of images nor TFRecords: each kind has its own words."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib

import pytest
from PIL import Image

from tf_image_classification.data import sources, tfrecord
from tf_image_classification.errors import FlagError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
HTML = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
LINES = b"photos/a.jpg,cat\nphotos/b.jpg,dog\n" * 10


def zipped(name: str = "cat/a.jpg") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


def tarred(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        info = tarfile.TarInfo("cat/a.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return file.getvalue()


def image(image_format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, image_format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("photos.zip", zipped(), "a zip archive.*Unpack it"),
        ("photos", zipped(), "a zip archive"),
        ("train.tfrecord", zlib.compress(bytes(99)), "compressed by zlib.*gzip only"),
        ("images.xlsx", zipped(), r"an Excel workbook \(.xlsx\).*CSV UTF-8"),
        ("images.csv", zipped("[Content_Types].xml"), "an Excel workbook"),
        ("model.keras", zipped(), "a Keras model"),
        ("photos.tar", tarred("w"), "a tar archive"),
        ("photos.tar.gz", tarred("w:gz"), "a tar archive"),
        ("photos.gz", tarred("w:gz"), "a tar archive"),
        ("images.csv.gz", gzip.compress(LINES, mtime=0), "compressed by gzip.*gunzip"),
        ("images.gz", gzip.compress(LINES, mtime=0), "compressed by gzip.*gunzip"),
        ("images.parquet", b"PAR1\x15\x04\x15\x10" + bytes(20) + b"PAR1", "a Parquet file.*Export it as a CSV"),
        ("coco.json", b'{"images": [], "annotations": []}', "a JSON file.*Export it as a CSV"),
        ("image.jpg", image("JPEG"), "an image: .*names no classes.*give the folder that holds all classes"),
        ("image", image("PNG"), "an image"),
        ("image.heic", b"\0\0\0\x18ftypheic" + bytes(16), "an image"),
        ("images.csv", HTML, "an HTML page.*Download the file itself"),
        ("train.tfrecord", HTML, "an HTML page"),
        ("train.tfrecord", LFS, "a git-lfs pointer.*git lfs pull"),
        ("images.csv", LFS, "a git-lfs pointer"),
        ("images.jsonl", LFS, "a git-lfs pointer"),
        ("weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file.*--checkpoint_path"),
        ("model.ckpt-5.index", bytes(30), "a part of a TensorFlow checkpoint"),
        ("images.lst", LINES, "a text file of no known ending.*Rename"),
    ],
)
def test_a_file_of_another_kind_is_a_wrong_call_that_says_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FlagError, match=words) as raised:
        read(str(tmp_path / name))
    assert str(tmp_path / name) in str(raised.value)


def test_a_glob_of_images_names_the_folder_to_give_instead(tmp_path):
    for number in range(3):
        path = tmp_path / "photos" / "cat" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image("JPEG"))
    with pytest.raises(FlagError, match=rf"If cat is a class, give .*, {tmp_path}/photos; else a CSV"):
        sources.expand(f"{tmp_path}/photos/cat/*.jpg")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["saved_model.pb", "variables/variables.index"], "a SavedModel"),
        (["checkpoint", "model.ckpt-0.index", "data/train-00000-of-00001.tfrecord"], "a folder of checkpoints"),
        (["checkpoint", "model.ckpt-0.index"], "a folder of checkpoints"),
    ],
)
def test_the_folder_of_a_model_is_no_folder_of_classes(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FlagError, match=f"{words}.*--checkpoint_path or --model"):
        sources.expand(str(tmp_path))


def test_a_class_may_be_called_checkpoint(tmp_path):
    for label in ("checkpoint", "border"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.jpg").write_bytes(b"x")
    assert len(read(str(tmp_path))) == 2


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("length", [1, 300, 0x4D42, 0x4B50, 70_000])
def test_tfrecords_of_any_length_and_name_are_tfrecords(tmp_path, compress, length):
    records = b"".join(tfrecord.frame(b"x" * length) for _ in range(3))
    for name in ("train.tfrecord", "train-00000-of-00001", "data.gz"):
        (tmp_path / name).write_bytes(compress(records))
        assert isinstance(sources.expand(str(tmp_path / name))[0], sources.TFRecordFiles)


def read(path: str) -> list[object]:
    (source,) = sources.expand(path)
    assert isinstance(source, sources.ImageSource)
    return list(source.entries(sources.AS_GIVEN))
