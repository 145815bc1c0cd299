"""The bucket of a pipeline root on Kubeflow, on gs:// or s3://: checked as far as this machine can see it."""

from __future__ import annotations

import os

from pipelines.backends import bucket
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.storage import s3_requests


def check(pipeline_root: str) -> bool:
    """Checks that the bucket exists, and that this account may list it.

    A cluster's own MinIO can often be reached from inside it alone. So a bucket on s3:// is checked where this machine
    has credentials for S3, and one on minio://, Kubeflow's name for its own, where the service's address is set too;
    else it is not.

    Returns:
        Whether it was checked.

    Raises:
        FlagError: the root is in no bucket, or its bucket is not found.
        AccessError, ServiceError: access is denied, or the service cannot be reached.
    """
    if storage.is_gcs(pipeline_root):
        bucket.check(pipeline_root)
        return True
    if not storage.is_remote(pipeline_root):
        raise FlagError(
            "--pipeline_root is no folder in a bucket",
            received=pipeline_root,
            expected="gs://BUCKET/FOLDER, s3://BUCKET/FOLDER or minio://BUCKET/FOLDER",
        )
    storage.split_remote(pipeline_root)
    has_address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not s3_requests.credentials() or not (has_address or pipeline_root.startswith(storage.S3_SCHEME)):
        return False
    try:
        storage.check_bucket(pipeline_root)
    except FileNotFoundError:
        name = storage.split_remote(pipeline_root)[1]
        raise FlagError(
            "The bucket of --pipeline_root is not found",
            received=pipeline_root,
            hint=f"Create it first: aws s3 mb s3://{name}, or mc mb SERVER/{name}.",
        ) from None
    return True
