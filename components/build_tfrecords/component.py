"""build_tfrecords: labelled images -> checked, shuffled shards."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def build_tfrecords(
    data: dsl.Output[dsl.Dataset],
    statistics: dsl.Output[dsl.HTML],
    fingerprint: str,
    # flags: begin (written by `make generate`)
    billing_project: str = "",
    train_metadata: str = "",
    eval_metadata: str = "",
    labels_file: str = "",
    image_root: str = "",
    eval_fraction: float = 0.2,
    split_column: str = "",
    image_feature: str = "",
    label_feature: str = "",
    allow_missing_classes: bool = False,
    max_duplicates_across_splits: int = -1,
    max_image_pixels: int = 120000000,
    max_image_mib: int = 256,
    max_side: int = 0,
    # flags: end
):
    """Checks every image, splits them into train and eval, and writes TFRecord shards, class names and a manifest.

    Images that cannot be decoded are rejected and listed with the reason.

    Args:
        data: TFRecord shards, labels.txt, manifest.json and rejected.csv.
        statistics: page with class counts, near duplicates, rejected images and samples.
        fingerprint: fingerprint of the data, from resolve; part of the cache key, so that new data is built.
    """
    arguments = dict(locals())
    import shutil

    from tf_image_classification import build_tfrecords, command_line, flags, storage

    with command_line.reporting_errors():
        given = flags.for_step("build_tfrecords", arguments)
        storage.bill_to(given.billing_project)
        manifest = build_tfrecords.build(
            given.train_metadata,
            data.path,
            eval_metadata=given.eval_metadata,
            labels_file=given.labels_file,
            eval_fraction=given.eval_fraction,
            options=build_tfrecords.ReadOptions.of(given),
            allow_missing_classes=given.allow_missing_classes,
            max_duplicates_across_splits=given.max_duplicates_across_splits,
            fingerprint=fingerprint,
        )
    shutil.copyfile(f"{data.path}/statistics.html", statistics.path)
    data.metadata.update(build_tfrecords.metadata(manifest))
