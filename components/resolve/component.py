"""resolve: what the pipeline's paths mean today."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def resolve(
    # flags: begin (written by `make generate`)
    checkpoint_path: str = "",
    train_metadata: str = "",
    eval_metadata: str = "",
    image_size: int = 299,
    labels_file: str = "",
    image_root: str = "",
    eval_fraction: float = 0.2,
    model_name: str = "small",
    estimator: str = "",
    # flags: end
) -> NamedTuple("Outputs", train_sources=str, eval_sources=str, fingerprint=str, checkpoint=str, checkpoint_version=str):
    """Turns the paths that the pipeline was given into concrete ones, and fingerprints what lies there now.

    It is never cached: it is cheap, and the cache keys of the later steps hold its outputs.

    Returns:
        train_sources: train_metadata with absolute paths.
        eval_sources: eval_metadata with absolute paths; '' when not set.
        fingerprint: changes whenever the data does.
        checkpoint: checkpoint_path with links followed; '' when not set.
        checkpoint_version: changes whenever what lies at checkpoint does.
    """
    arguments = dict(locals())
    from tf_image_classification import command_line, flags, resolve

    with command_line.reporting_errors():
        return resolve.resolve(flags.for_step("resolve", arguments))
