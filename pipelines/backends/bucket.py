"""The bucket of a pipeline root: it is looked at before a run is sent, and never created."""

from __future__ import annotations

from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion.google_errors import translate_api_errors


def check(pipeline_root: str, create_options: str = "") -> None:
    """Makes sure that the bucket is there. Its region and rights are a decision, so it is not made here.

    Args:
        create_options: what would follow `gcloud storage buckets create gs://BUCKET`.

    Raises:
        FlagError: it is none, or not there.
        ServiceError: it may not be read, or the storage cannot be reached.
    """
    if not storage.is_gcs(pipeline_root):
        raise FlagError("--pipeline_root is required", received=pipeline_root or None, expected="gs://BUCKET/FOLDER")
    bucket, _ = storage.split_gcs(pipeline_root)
    try:
        with translate_api_errors("Cloud Storage", f"list the bucket {bucket}", "roles/storage.objectUser"):
            storage.check_bucket(pipeline_root)
    except FileNotFoundError:
        raise FlagError(
            "The bucket of --pipeline_root is not there",
            received=pipeline_root,
            hint="Create it where the runs will be: "
            + f"gcloud storage buckets create gs://{bucket} {create_options}".rstrip(),
        ) from None
