"""evaluate: model + evaluation shards -> metrics and a report."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def evaluate(
    data: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    # flags: begin (written by `make generate`)
    estimator: str = "",
    packages: str = "",
    eval_batch_size: int = 32,
    # flags: end
):
    """Scores the SavedModel on every evaluation example: what is measured is what ships.

    Args:
        data: what build_tfrecords wrote.
        model: what train wrote.
        evaluation: metrics.json, predictions.csv and report.html.
        metrics: accuracy, loss and the like.
        confusion: the confusion matrix, for up to tens of classes.
        report: report.html.
    """
    arguments = dict(locals())
    import shutil

    from tf_image_classification import command_line, estimator_specs, evaluate, flags, manifest

    with command_line.reporting_errors():
        values = flags.for_step("evaluate", arguments)
        spec = estimator_specs.load(values.estimator, values.packages) if values.estimator else None
        found = evaluate.evaluate(model.path, manifest.read(data.path), evaluation.path, batch_size=values.eval_batch_size, spec=spec)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
    # These two live in metadata; kfp's local cache still wants a file where they say they are.
    for artifact in (metrics, confusion):
        shutil.copyfile(f"{evaluation.path}/metrics.json", artifact.path)
    for name, value in evaluate.kfp_metrics(found).items():
        metrics.log_metric(name, value)
    labels, matrix = evaluate.confusion(found)
    if labels:
        confusion.log_confusion_matrix(labels, matrix)
