"""The pipeline: resolve -> build_tfrecords -> train -> evaluate -> gate, with every flag as a parameter."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kfp import dsl

from components.build_tfrecords.component import build_tfrecords
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.resolve.component import resolve
from components.train.component import train
from tf_image_classification import flags as flag_table

NAME = "image-classification"

_SUMMARY = """Retrains an image classifier.

    1. resolve: what the paths mean today, and a fingerprint of the data (never cached)
    2. build_tfrecords: checked images, split and shuffled, as TFRecord shards
    3. train: from a pretrained checkpoint, from scratch, or from where an interrupted training was
    4. evaluate: metrics and a report on the held-out images
    5. gate: does the model pass the thresholds? (never cached)

    Args:
"""


class Outputs(NamedTuple):
    """What a run ends with."""

    data: dsl.Dataset
    model: dsl.Model
    evaluation: dsl.Artifact
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Options:
    """What is fixed when the pipeline is compiled.

    Attributes:
        image_registry: images are called `<image_registry>/<step>:<image_tag>`.
        image_tag: must never be moved to another image: it is part of the cache's keys.
        cpu: cores of the training step, as KFP writes them ('8'); '' leaves it to the platform.
        memory: of the training step ('32G'); '' leaves it to the platform.
        accelerator: of the training step, type and count ('NVIDIA_TESLA_T4:1'); '' for none.
        retries: how often a failed step is tried again.
    """

    image_registry: str
    image_tag: str
    cpu: str = ""
    memory: str = ""
    accelerator: str = ""
    retries: int = 0


def make_pipeline(options: Options) -> Any:
    """The pipeline as KFP's compiler takes it."""
    parameters = flag_table.of_pipeline()

    def chain(*values: Any) -> Outputs:
        given = dict(zip((flag.name for flag in parameters), values, strict=True))

        def flags_of(step: str) -> dict[str, Any]:
            return {flag.name: given[flag.name] for flag in flag_table.of_step(step)}

        resolved = resolve(**flags_of("resolve"))
        sources = {"train_metadata": resolved.outputs["train_sources"], "eval_metadata": resolved.outputs["eval_sources"]}
        built = build_tfrecords(**flags_of("build_tfrecords") | sources, fingerprint=resolved.outputs["fingerprint"])
        trained = train(
            **flags_of("train") | {"checkpoint_path": resolved.outputs["checkpoint"]},
            data=built.outputs["data"],
            pipeline_root=dsl.PIPELINE_ROOT_PLACEHOLDER,
            checkpoint_version=resolved.outputs["checkpoint_version"],
        )
        evaluated = evaluate(**flags_of("evaluate"), data=built.outputs["data"], model=trained.outputs["model"])
        judged = gate(**flags_of("gate"), evaluation=evaluated.outputs["evaluation"])

        resolved.set_caching_options(False)
        judged.set_caching_options(False)
        _set_resources(trained, options)
        for task, image in (
            (resolved, "build_tfrecords"),
            (built, "build_tfrecords"),
            (trained, "train"),
            (evaluated, "evaluate"),
            (judged, "build_tfrecords"),
        ):
            task.set_container_image(f"{options.image_registry}/{image}:{options.image_tag}")
            if options.retries:
                task.set_retry(options.retries, backoff_duration="30s", backoff_factor=2)
        return Outputs(
            data=built.outputs["data"],
            model=trained.outputs["model"],
            evaluation=evaluated.outputs["evaluation"],
            passed=judged.outputs["passed"],
            reason=judged.outputs["reason"],
        )

    chain.__doc__ = _SUMMARY + "".join(f"        {flag.name}: {flag.help}\n" for flag in parameters)
    return dsl.pipeline(name=NAME)(_with_signature(chain, parameters))


def _set_resources(task: Any, options: Options) -> None:
    if options.cpu:
        task.set_cpu_limit(options.cpu)
    if options.memory:
        task.set_memory_limit(options.memory)
    if options.accelerator:
        kind, _, count = options.accelerator.partition(":")
        task.set_accelerator_type(kind).set_accelerator_limit(int(count))


def _with_signature(function: Callable[..., Outputs], parameters: list[flag_table.Flag]) -> Callable[..., Outputs]:
    """KFP reads a pipeline's parameters off its function's signature."""
    function.__name__ = NAME.replace("-", "_")
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(flag.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=flag.pipeline_default, annotation=flag.type)
            for flag in parameters
        ],
        return_annotation=Outputs,
    )
    function.__annotations__ = {flag.name: flag.type for flag in parameters} | {"return": Outputs}
    return function
