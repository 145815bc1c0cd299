"""Step 1: labelled images -> checked TFRecord shards with a manifest. It imports no TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_image_classification.build_tfrecords.builder import build, build_eval, check
    from tf_image_classification.build_tfrecords.report import metadata
    from tf_image_classification.data.fingerprint import fingerprint
    from tf_image_classification.data.sources import ReadOptions

__all__ = ["ReadOptions", "build", "build_eval", "check", "fingerprint", "metadata"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562): a worker process imports this package and needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tf_image_classification.build_tfrecords import builder, report
    from tf_image_classification.data import fingerprint as fingerprints

    return getattr({"fingerprint": fingerprints, "metadata": report}.get(name, builder), name)
