"""Files and folders that are given as metadata and hold no list of images and no TFRecords, by their first bytes."""

from __future__ import annotations

import os
import posixpath
import zlib

from tf_image_classification import storage
from tf_image_classification.errors import FlagError

HEAD_BYTES = 4096  # of a file, that tell what it is

_UNPACK = "Unpack it, and give the folder with one sub-folder per class, or the CSV"
_AS_CSV = "Export it as a CSV of path,label lines"
_A_MODEL = "--train_metadata and --eval_metadata name data; a model belongs to --checkpoint_path or --model"
_LFS = "Fetch the file itself: git lfs pull"

# Magic bytes -> what the file is, and what to do. A TFRecord starts with its length in 8 bytes; the last ones are 0.
_MAGIC = {
    b"version https://git-lfs": ("a git-lfs pointer, not the file that it stands for", _LFS),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"BZh": ("a file compressed by bzip2", _UNPACK),
    b"\xfd7zXZ\0": ("a file compressed by xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("a file compressed by zstd", _UNPACK),
    b"\x78\x9c": ("a file compressed by zlib", "TFRecords may be compressed by gzip only (TFRecordOptions: GZIP)"),
    b"PAR1": ("a Parquet file", _AS_CSV),
    b"ARROW1": ("an Arrow file", _AS_CSV),
    b"Obj\x01": ("an Avro file", _AS_CSV),
    b"SQLite format 3": ("an SQLite database", _AS_CSV),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook (.xls)", _AS_CSV),
    b"%PDF": ("a PDF", "Give a folder of images, or a CSV of path,label lines"),
    b"\x89HDF\r\n": ("an HDF5 file, such as a Keras model", _A_MODEL),
    b"\x93NUMPY": ("a NumPy array", "Write the images as files, or as TFRecords"),
}
# What a zip, gzip or nameless file is by its ending.
_NAMED = {
    ".xlsx": ("an Excel workbook (.xlsx)", "In Excel, save it as CSV UTF-8"),
    ".keras": ("a Keras model", _A_MODEL),
    ".npz": ("a NumPy archive", "Write the images as files, or as TFRecords"),
    ".csv.gz": ("a CSV compressed by gzip", "Unpack it: gunzip"),
    ".tsv.gz": ("a list compressed by gzip", "Unpack it: gunzip"),
    ".txt.gz": ("a list compressed by gzip", "Unpack it: gunzip"),
    ".jsonl.gz": ("a JSON Lines file compressed by gzip", "Unpack it: gunzip"),
    ".tar.gz": ("a tar archive", _UNPACK),
    ".tgz": ("a tar archive", _UNPACK),
    ".tar": ("a tar archive", _UNPACK),
    ".zip": ("a zip archive", _UNPACK),
    ".parquet": ("a Parquet file", _AS_CSV),
    ".json": ("a JSON file", _AS_CSV + ", or as JSON Lines (.jsonl) in Vertex AI's import format"),
    ".xml": ("an XML file", _AS_CSV),
    ".yaml": ("a YAML file", _AS_CSV),
    ".yml": ("a YAML file", _AS_CSV),
    ".html": ("an HTML page", "Download the file itself"),
    ".h5": ("an HDF5 file, such as a Keras model", _A_MODEL),
    ".pb": ("a TensorFlow graph", _A_MODEL),
    ".index": ("a part of a TensorFlow checkpoint", _A_MODEL),
}
_GZIP = b"\x1f\x8b\x08"
_ZIP = b"PK\x03\x04"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2")
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_EXPECTED = "a folder with one sub-folder per class, a list of images (.csv, .tsv, .txt, .jsonl), or TFRecords"


def refuse_file(path: str) -> None:
    """Checks a file that no list of images is: by its name, and where it is no gs:// object by its first bytes.

    Raises:
        FlagError: it is of a known kind other than TFRecords.
    """
    head = _head(path)
    refuse_content(path, head)
    name = posixpath.basename(path).lower()
    if name.endswith(_IMAGE_SUFFIXES):
        _refuse_image(path)
    for suffix, (what, hint) in _NAMED.items():
        if name.endswith(suffix):
            _refuse(path, what, hint)
    if _is_text(head):
        _refuse(path, "a text file of no known ending", "Rename a list of path,label lines to .csv or .txt")


def refuse_content(path: str, head: bytes) -> None:
    """Checks the first bytes of a file.

    Raises:
        FlagError: they are of a known kind that is neither text nor TFRecords.
    """
    if head.startswith(_GZIP):  # whose time, in bytes 4 to 7, may be 0
        _refuse_gzip(path, head)
        return
    if head[4:8] == bytes(4):  # the length of a record
        return
    if head.startswith(_IMAGE_MAGIC):
        _refuse_image(path)
    if head.startswith(_ZIP):
        _refuse_zip(path, head)
    for magic, (what, hint) in _MAGIC.items():
        if head.startswith(magic):
            _refuse(path, what, hint)
    if head[257:262] == b"ustar":
        _refuse(path, *_NAMED[".tar"])
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        _refuse(path, "an HTML page, such as a log-in or error page", "Download the file itself")


def refuse_model(folder: str) -> None:
    """Checks that a folder holds no model and no checkpoints, whose sub-folders would count as classes.

    Raises:
        FlagError: it does.
    """
    for name, what in (("saved_model.pb", "a SavedModel"), ("checkpoint", "a folder of checkpoints")):
        file = storage.join(folder, name)
        if storage.exists(file) and not storage.is_dir(file):
            _refuse(folder, what, _A_MODEL)


def _refuse_zip(path: str, head: bytes) -> None:
    """Refuses a zip archive, or what is one inside: an Excel workbook starts with its content types."""
    suffix = ".xlsx" if b"[Content_Types].xml" in head[:64] else posixpath.splitext(path)[1].lower()
    _refuse(path, *_NAMED[suffix if suffix in (".xlsx", ".keras", ".npz") else ".zip"])


def _is_text(head: bytes) -> bool:
    """Whether this is text. A TFRecord starts with 12 bytes of length and checksum, some of which are 0."""
    return len(head) > 12 and not set(head[:12]).intersection(range(9))


def _refuse_gzip(path: str, head: bytes) -> None:
    """Refuses gzip other than TFRecords, which may be compressed by it: archives and text."""
    try:
        content = zlib.decompressobj(31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return
    if content[257:262] == b"ustar":
        _refuse(path, *_NAMED[".tar"])
    if _is_text(content):
        _refuse(path, "text compressed by gzip, such as a CSV", "Unpack it: gunzip")


def _refuse_image(path: str) -> None:
    folder = posixpath.dirname(path) or "."
    above = posixpath.dirname(os.path.abspath(folder) if not storage.is_remote(folder) else folder)
    _refuse(
        path,
        "an image: a glob or list of images names no classes",
        f"If {posixpath.basename(folder)} is a class, give the folder that holds all classes, {above}; else a CSV of "
        "path,label lines",
    )


def _refuse(path: str, what: str, hint: str) -> None:
    raise FlagError(f"The metadata names {what}", received=path, expected=_EXPECTED, hint=hint + ".")


def _head(path: str) -> bytes:
    """The first bytes of a file; b"" for one of a bucket, where each costs a request, and for an unreadable one."""
    path = storage.mounted(path)
    if storage.is_remote(path):
        return b""
    try:
        with storage.open_file(path) as file:
            return file.read(HEAD_BYTES)
    except OSError:  # said when the file is read
        return b""
