"""Step 1: labelled images -> checked TFRecord shards with a manifest. It imports no TensorFlow."""

from tf_image_classification.build_tfrecords.builder import build, build_eval
from tf_image_classification.data.fingerprint import fingerprint

__all__ = ["build", "build_eval", "fingerprint"]
