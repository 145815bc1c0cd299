"""One view of local paths, /gcs/ mounts and gs:// objects."""

from tf_image_classification.storage.gcs import check_bucket, retained_until
from tf_image_classification.storage.gcs_client import bill_to
from tf_image_classification.storage.gcs_folders import upload
from tf_image_classification.storage.leftovers import tidying
from tf_image_classification.storage.local_copies import fetch, fetch_dir
from tf_image_classification.storage.local_files import Stat, open_file, temporary_dir
from tf_image_classification.storage.local_folders import remove_leftovers
from tf_image_classification.storage.local_locks import exclusive
from tf_image_classification.storage.paths import (
    GCS_MOUNT,
    GCS_SCHEME,
    as_prefix,
    canonical,
    is_gcs,
    is_unicode,
    join,
    mounted,
    split_gcs,
)
from tf_image_classification.storage.reading import (
    MAX_TEXT_BYTES,
    exists,
    folders_in,
    glob,
    is_dir,
    names_in,
    other_form,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    read_version,
    stat,
    walk,
)
from tf_image_classification.storage.write_check import check_overwritable
from tf_image_classification.storage.writing import (
    check_replaceable,
    copy_dir_once,
    delete,
    replacing_dir,
    restore_dir,
    write_bytes,
    write_text,
)

__all__ = [
    "GCS_MOUNT",
    "GCS_SCHEME",
    "MAX_TEXT_BYTES",
    "Stat",
    "as_prefix",
    "bill_to",
    "canonical",
    "check_bucket",
    "check_overwritable",
    "check_replaceable",
    "copy_dir_once",
    "delete",
    "exclusive",
    "exists",
    "fetch",
    "fetch_dir",
    "folders_in",
    "glob",
    "is_dir",
    "is_gcs",
    "is_unicode",
    "join",
    "mounted",
    "names_in",
    "open_file",
    "other_form",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_text",
    "read_version",
    "remove_leftovers",
    "replacing_dir",
    "restore_dir",
    "retained_until",
    "split_gcs",
    "stat",
    "temporary_dir",
    "tidying",
    "upload",
    "walk",
    "write_bytes",
    "write_text",
]
