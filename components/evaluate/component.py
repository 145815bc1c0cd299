"""evaluate: model and evaluation split -> metrics and a report."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def evaluate(
    data: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    champion_folder: str,
    champion_version: str,
    estimator_version: str,
    # flags: begin (written by `make generate`)
    billing_project: str = "",
    estimator: str = "",
    packages: str = "",
    eval_batch_size: int = 32,
    # flags: end
):
    """Evaluates the trained model, and the model in service on the same images; writes metrics and a report.

    It scores the exported SavedModel, through its serving signature, on the whole evaluation split.

    Args:
        data: TFRecord shards and manifest, from build_tfrecords.
        model: model folder with the SavedModel, from train.
        evaluation: metrics.json, predictions.csv and report.html; those of the model in service are under champion/.
        metrics: accuracy, loss and the other scalar metrics; champion_... are those of the model in service.
        confusion: confusion matrix; of more than 40 classes those with the most mistakes.
        report: report.html, self-contained.
        champion_folder: model folder of the model in service, from resolve; '' for none.
        champion_version: version of the content of champion_folder, from resolve; part of the cache key.
        estimator_version: version of the code of estimator, from resolve; part of the cache key; '' without one.
    """
    arguments = dict(locals())
    import shutil

    from tf_image_classification import command_line, estimator_loading, evaluation_folder, flags, storage
    from tf_image_classification.data import manifest
    from tf_image_classification.evaluate import evaluate

    with command_line.reporting_errors():
        values = flags.for_step("evaluate", arguments)
        storage.bill_to(values.billing_project)
        spec = estimator_loading.load(values.estimator, values.packages) if values.estimator else None
        if spec:
            spec.code.check_resolved(estimator_version)
        dataset, batch_size = manifest.read(data.path), values.eval_batch_size
        results = evaluate(model.path, dataset, evaluation.path, batch_size=batch_size, spec=spec)
        scalars = evaluation_folder.scalar_metrics(results)
        if champion_folder:
            output_dir = f"{evaluation.path}/{evaluation_folder.CHAMPION}"
            champion_results = evaluate(champion_folder, dataset, output_dir, batch_size=batch_size)
            champion_scalars = evaluation_folder.scalar_metrics(champion_results)
            for name in ("accuracy", "macro_f1", "loss"):
                if name in champion_scalars:
                    scalars[f"champion_{name}"] = champion_scalars[name]
    shutil.copyfile(f"{evaluation.path}/{evaluation_folder.REPORT}", report.path)
    # The values of these two are metadata, but kfp's local cache requires a file at each path.
    for artifact in (metrics, confusion):
        shutil.copyfile(f"{evaluation.path}/{evaluation_folder.METRICS}", artifact.path)
    for name, value in scalars.items():
        metrics.log_metric(name, value)
    labels, matrix = evaluation_folder.confusion_matrix(results)
    if labels:
        confusion.log_confusion_matrix(labels, matrix)
