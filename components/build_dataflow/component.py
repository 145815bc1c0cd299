"""build_tfrecords with --build_runner dataflow: launches a Dataflow job that checks images and writes shards."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def build_tfrecords(
    data: dsl.Output[dsl.Dataset],
    statistics: dsl.Output[dsl.HTML],
    fingerprint: str,
    dataflow: str,
    project: str,
    location: str,
    service_account: str,
    encryption_key: str,
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
    """Has Dataflow check every image and write TFRecord shards, with the inputs and outputs of build_tfrecords.

    Retried, it goes on with the job that it has started; stopped, as when the run is cancelled, it cancels the job.

    Args:
        data: TFRecord shards, labels.txt, manifest.json and rejected.csv; on gs://.
        statistics: page with class counts, near duplicates, rejected images and samples.
        fingerprint: fingerprint of the data, from resolve; part of the cache key, so that new data is built.
        dataflow: image, region and machines, as `python -m pipelines compile --build_runner` writes them, in JSON.
        project: of the run on Vertex AI, by the placeholder pipeline_google_cloud_project_id; '' elsewhere.
        location: of the run on Vertex AI, by the placeholder pipeline_google_cloud_location; '' elsewhere.
        service_account: of the run on Vertex AI, by the placeholder pipeline_service_account; '' elsewhere.
        encryption_key: of Vertex AI's storage, by the placeholder pipeline_encryption_key_name; '' for none.
    """
    arguments = dict(locals())
    from tf_image_classification import build_tfrecords, command_line, flags, storage
    from tf_image_classification.dataflow import build_step

    with command_line.reporting_errors():
        manifest = build_step.build(
            data.uri,
            flags.for_step("build_tfrecords", arguments),
            dataflow=dataflow,
            run={
                "project": project,
                "location": location,
                "service_account": service_account,
                "encryption_key": encryption_key,
            },
            fingerprint=fingerprint,
        )
        with open(statistics.path, "w", encoding="utf-8") as page:
            page.write(storage.read_text(storage.join(data.uri, "statistics.html")))
    data.metadata.update(build_tfrecords.metadata(manifest))
