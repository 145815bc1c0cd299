"""The pipeline: resolve -> build_tfrecords -> train -> evaluate -> gate -> register, with every flag as a parameter."""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kfp import dsl

from components.build_tfrecords.component import build_tfrecords
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.notify.component import notify
from components.register.component import register
from components.resolve.component import resolve
from components.train.component import train
from tf_image_classification import flags as flag_table

NAME = "image-classification"
NOTIFY = "notify"  # the step behind all others, which is none of the chain

_SUMMARY = """Retrains an image classifier.

    1. resolve: what the paths mean today, a fingerprint of the data, and the model in service (never cached)
    2. build_tfrecords: checked images, split and shuffled, as TFRecord shards
    3. train: from a pretrained checkpoint, from scratch, or from where an interrupted training was
    4. evaluate: metrics and a report on the held-out images, of the new model and of the one in service
    5. gate: does the model pass the thresholds, and beat the one in service? (never cached)
    6. register: where champion is set, a model that passed is put in service (never cached)

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
    """What is fixed when the pipeline is compiled; the mappings are by step.

    Attributes:
        images: references; their tags are part of the cache's keys and must never be moved to another image.
        cpu: limits in cores, as KFP writes them ('8'); a step that is not in it leaves it to the platform.
        memory: limits, as KFP writes them ('32G').
        accelerator: type and count ('NVIDIA_TESLA_T4:1').
        retries: how often a failed step is tried again.
        notify: who is told of a run that fails, see tf_image_classification.promotion.notify; '' for nobody.
    """

    images: Mapping[str, str]
    cpu: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, str] = field(default_factory=dict)
    accelerator: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0
    notify: str = ""


def make_pipeline(options: Options) -> Any:
    """The pipeline as KFP's compiler takes it."""
    parameters = flag_table.of_pipeline()

    def chain(*values: Any) -> Any:
        given = dict(zip((flag.name for flag in parameters), values, strict=True))
        with _notifying(options):
            outputs = _steps(given, options)
        # KFP takes no outputs out of an exit handler.
        return None if options.notify else outputs

    chain.__doc__ = _SUMMARY + "".join(f"        {flag.name}: {flag.help}\n" for flag in parameters)
    return dsl.pipeline(name=NAME)(_with_signature(chain, parameters, None if options.notify else Outputs))


def _steps(given: Mapping[str, Any], options: Options) -> Outputs:
    """The chain; `given` holds the pipeline's parameters."""

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
    evaluated = evaluate(
        **flags_of("evaluate"),
        data=built.outputs["data"],
        model=trained.outputs["model"],
        champion_folder=resolved.outputs["champion_folder"],
        champion_version=resolved.outputs["champion_version"],
    )
    judged = gate(**flags_of("gate"), evaluation=evaluated.outputs["evaluation"])
    # Two conditions, one in the other: joined by `and`, KFP drops the first, and kfp.local knows outputs in inner
    # conditions only.
    with dsl.If(given["champion"] != "", name="champion"), dsl.If(judged.outputs["passed"] == True, name="passed"):  # noqa: E712
        registered = register(
            **flags_of("register"),
            model=trained.outputs["model"],
            evaluation=evaluated.outputs["evaluation"],
            in_service=resolved.outputs["in_service"],
            reason=judged.outputs["reason"],
            run=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        )
    tasks = (resolved, built, trained, evaluated, judged, registered)
    for step, task in zip(flag_table.STEPS, tasks, strict=True):
        _place(task, step, options)
    for task in (resolved, judged, registered):
        task.set_caching_options(False)
    return Outputs(
        data=built.outputs["data"],
        model=trained.outputs["model"],
        evaluation=evaluated.outputs["evaluation"],
        passed=judged.outputs["passed"],
        reason=judged.outputs["reason"],
    )


def _notifying(options: Options) -> Any:
    """A context in whose end, whatever it is, a step tells of it; none when nobody is to be told."""
    if not options.notify:
        return contextlib.nullcontext()
    task = notify(destination=options.notify, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)
    task.set_container_image(options.images[NOTIFY]).set_caching_options(False)
    return dsl.ExitHandler(task, name="notify")


def _place(task: Any, step: str, options: Options) -> None:
    task.set_container_image(options.images[step])
    if step in options.cpu:
        task.set_cpu_limit(options.cpu[step])
    if step in options.memory:
        task.set_memory_limit(options.memory[step])
    if step in options.accelerator:
        kind, _, count = options.accelerator[step].partition(":")
        task.set_accelerator_type(kind).set_accelerator_limit(int(count))
    if options.retries:
        task.set_retry(options.retries, backoff_duration="30s", backoff_factor=2)


def _with_signature(
    function: Callable[..., Any], parameters: list[flag_table.Flag], outputs: type | None
) -> Callable[..., Any]:
    """KFP reads a pipeline's parameters and outputs off its function's signature."""
    function.__name__ = NAME.replace("-", "_")
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                flag.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=flag.pipeline_default, annotation=flag.type
            )
            for flag in parameters
        ],
        return_annotation=outputs or inspect.Signature.empty,
    )
    function.__annotations__ = {flag.name: flag.type for flag in parameters} | ({"return": outputs} if outputs else {})
    return function
