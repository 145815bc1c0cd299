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
    champion_folder: str,
    champion_version: str,
    # flags: begin (written by `make generate`)
    estimator: str = "",
    packages: str = "",
    eval_batch_size: int = 32,
    # flags: end
):
    """Scores the SavedModel on every evaluation example, and the model in service too: what is measured is what ships.

    Args:
        data: what build_tfrecords wrote.
        model: what train wrote.
        evaluation: metrics.json, predictions.csv and report.html, and under champion/ those of the model in service.
        metrics: accuracy, loss and the like.
        confusion: the confusion matrix, for up to tens of classes.
        report: report.html.
        champion_folder: model folder of the model in service; '' for none.
        champion_version: identifies what lies at champion_folder.
    """
    arguments = dict(locals())
    import shutil

    from tf_image_classification import command_line, estimator_specs, evaluate, flags
    from tf_image_classification.data import manifest

    with command_line.reporting_errors():
        values = flags.for_step("evaluate", arguments)
        spec = estimator_specs.load(values.estimator, values.packages) if values.estimator else None
        built = manifest.read(data.path)
        found = evaluate.evaluate(model.path, built, evaluation.path, batch_size=values.eval_batch_size, spec=spec)
        shown = evaluate.kfp_metrics(found)
        if champion_folder:
            place = f"{evaluation.path}/{evaluate.CHAMPION}"
            in_service = evaluate.evaluate(champion_folder, built, place, batch_size=values.eval_batch_size)
            compared = ("accuracy", "macro_f1", "loss")
            shown |= {
                f"champion_{name}": value
                for name, value in evaluate.kfp_metrics(in_service).items()
                if name in compared
            }
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
    # These two live in metadata; kfp's local cache still wants a file where they say they are.
    for artifact in (metrics, confusion):
        shutil.copyfile(f"{evaluation.path}/metrics.json", artifact.path)
    for name, value in shown.items():
        metrics.log_metric(name, value)
    labels, matrix = evaluate.confusion(found)
    if labels:
        confusion.log_confusion_matrix(labels, matrix)
