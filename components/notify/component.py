"""notify: a failed run -> a notification."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def notify(status: dsl.PipelineTaskFinalStatus, destination: str, run: str, insecure: bool = False):
    """Notifies a webhook or a Pub/Sub topic unless the run succeeded.

    It is the exit handler of the pipeline: it runs after all other steps, whether they succeed or fail.

    Args:
        status: final status of the run, filled in by KFP.
        destination: URL of a webhook that takes JSON, or a Pub/Sub topic, projects/P/topics/T.
        run: name of the run; empty for scheduled runs on Kubeflow.
        insecure: allow an http:// URL, and one of this machine.
    """
    from tf_image_classification import command_line
    from tf_image_classification.promotion import notify

    with command_line.reporting_errors():
        notify.notify(destination, vars(status), run, insecure=insecure)
