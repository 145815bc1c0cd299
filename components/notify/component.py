"""notify: tells of a run that failed."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def notify(status: dsl.PipelineTaskFinalStatus, destination: str, run: str):
    """Tells of a run that did not succeed; it runs behind all other steps, whatever came of them.

    Args:
        status: how the run ended.
        destination: a web address that takes JSON, or projects/P/topics/T of Pub/Sub.
        run: name of the run.
    """
    from tf_image_classification import command_line
    from tf_image_classification.promotion import notify

    with command_line.reporting_errors():
        notify.notify(destination, vars(status), run)
