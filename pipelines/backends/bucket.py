"""The bucket of a pipeline root: checked before a run is submitted, and never created."""

from __future__ import annotations

from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion.google_errors import translate_api_errors


def check(pipeline_root: str, create_options: str = "") -> None:
    """Checks that the bucket exists. Its region and rights are the user's decision, so it is not created here.

    Args:
        create_options: further options of `gcloud storage buckets create gs://BUCKET`, for the hint.

    Raises:
        FlagError: the root is not on gs://, or its bucket is not found or has a retention policy.
        ServiceError: access is denied, or Cloud Storage cannot be reached.
    """
    if not storage.is_gcs(pipeline_root):
        raise FlagError("--pipeline_root is required", received=pipeline_root or None, expected="gs://BUCKET/FOLDER")
    bucket, _ = storage.split_gcs(pipeline_root)
    try:
        with translate_api_errors("Cloud Storage", f"list the bucket {bucket}", "roles/storage.objectUser"):
            storage.check_bucket(pipeline_root)
    except FileNotFoundError:
        command = f"gcloud storage buckets create gs://{bucket} {create_options}".rstrip()
        raise FlagError(
            "The bucket of --pipeline_root is not found",
            received=pipeline_root,
            hint=f"Create it where the runs will be: {command}",
        ) from None
    if until := storage.retained_until(pipeline_root):
        raise FlagError(
            "The bucket of --pipeline_root has a retention policy, and steps replace checkpoints and other objects",
            received=f"{pipeline_root}, with an object that is retained until {until:%Y-%m-%d}",
            expected="a bucket whose objects may be overwritten and deleted",
        )
