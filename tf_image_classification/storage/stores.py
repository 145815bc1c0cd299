"""The services that keep objects in buckets, behind one interface: Cloud Storage for gs://, S3's protocol for s3://.

A version is what a service tells one content of an object from another by: Cloud Storage's generation, an integer, or
S3's ETag, a text. 0 stands for no object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from tf_image_classification.storage import gcs, gcs_transfers, s3, s3_transfers
from tf_image_classification.storage.local_files import Stat, Version
from tf_image_classification.storage.paths import is_gcs


class Store(Protocol):
    """The objects of a service; `gcs` documents each function."""

    def check_bucket(self, path: str) -> None: ...
    def find(self, path: str) -> Stat | None: ...
    def stat(self, path: str) -> Stat: ...
    def list_objects(self, folder: str, hidden: bool = False) -> Iterator[Stat]: ...
    def page_of_objects(self, bucket_path: str, prefix: str, start: str, number: int) -> list[Stat]: ...
    def glob(self, pattern: str) -> list[str]: ...
    def names_in(self, folder: str, folders_only: bool = False) -> list[str]: ...
    def read_version(self, path: str, max_bytes: int | None = None) -> tuple[bytes, Version]: ...
    def write(self, path: str, content: bytes, if_version: Version) -> Version: ...
    def delete(self, objects: Iterable[Stat]) -> None: ...


class Transfers(Protocol):
    """Files to and from the objects of a service; `gcs_transfers` documents each function."""

    def upload(self, file: str, path: str) -> None: ...
    def upload_files(self, folder: str, names: Sequence[str], destination: str) -> None: ...
    def copy_files(self, sources: Mapping[str, str], destination: str) -> None: ...
    def download_files(self, objects: Sequence[Stat], files: Sequence[str]) -> None: ...


def store_of(path: str) -> Store:
    """The service that has the object of a remote path."""
    return gcs if is_gcs(path) else s3


def transfers_of(path: str) -> Transfers:
    """The transfers to and from the service that has the object of a remote path."""
    return gcs_transfers if is_gcs(path) else s3_transfers
