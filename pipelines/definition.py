"""The pipeline: resolve -> build_tfrecords -> train -> evaluate -> gate -> register, with every flag as a parameter."""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kfp import dsl

from components.build_dataflow.component import build_tfrecords as launch_dataflow
from components.build_tfrecords.component import build_tfrecords
from components.command import exec_python
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.notify.component import notify
from components.register.component import register
from components.resolve.component import resolve
from components.train.component import train
from components.train_cluster.component import train as launch_cluster
from pipelines import build_runner, clusters, kubernetes_platform
from tf_image_classification import flags as flag_table
from tf_image_classification.dataflow.options import DataflowOptions
from tf_image_classification.flag_types import BUILD_STEP
from tf_image_classification.launch.job import ClusterShape

NAME = "image-classification"
NOTIFY = "notify"  # the exit handler, which is not part of the chain

# The component of each step, by the step's name.
COMPONENTS: Mapping[str, Any] = {
    "resolve": resolve,
    "build_tfrecords": build_tfrecords,
    "train": train,
    "evaluate": evaluate,
    "gate": gate,
    "register": register,
    NOTIFY: notify,
}
for _component in (*COMPONENTS.values(), launch_cluster, launch_dataflow):
    exec_python(_component)
# These read or change what no input of theirs identifies: files, the model in service, the run's state.
NEVER_CACHED = frozenset({"resolve", "gate", "register", NOTIFY})
# KFP's backoff_max_duration, by default an hour. On Kubeflow it counts from the start of the first attempt: Argo starts
# no retry after it and ends one that then runs, so it must be longer than any training.
_RETRY_WINDOW = "365d"

_SUMMARY = """Retrains an image classifier.

    1. resolve: absolute paths, a fingerprint of the data, and the model in service (never cached)
    2. build_tfrecords: checked images, split and shuffled, as TFRecord shards
    3. train: from a pretrained checkpoint, from scratch, or from where an interrupted training stopped
    4. evaluate: metrics and a report on the held-out images, of the new model and of the one in service
    5. gate: does the model pass the thresholds, and beat the one in service? (never cached)
    6. register: where champion is set, a model that passed is promoted to the model in service (never cached)

    Args:
"""


class Outputs(NamedTuple):
    """The outputs of the pipeline."""

    data: dsl.Dataset
    model: dsl.Model
    evaluation: dsl.Artifact
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Options:
    """What is fixed when the pipeline is compiled; the mappings are by step.

    Attributes:
        images: image references; their tags are part of the cache keys and must never be moved to another image.
        cpu: limits in cores, as KFP writes them ('8'); a step that is not in the mapping has no limit.
        memory: limits, as KFP writes them ('32G').
        accelerator: type and count, as the backend names it ('NVIDIA_TESLA_T4:1', 'nvidia.com/gpu:1').
        retries: how often a failed step is retried.
        notify: where a failed run is reported, see tf_image_classification.promotion.notify; '' for nowhere.
        notify_insecure: allows `notify` an http:// URL, and one of this machine.
        kubernetes: settings of the steps' pods, which only Kubeflow takes.
        cluster: whose tasks train, with their limits, accelerators and image; None: the training step itself does.
        dataflow: whose workers build, with the image of the step; None: the build step itself does.
    """

    images: Mapping[str, str]
    cpu: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, str] = field(default_factory=dict)
    accelerator: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0
    notify: str = ""
    notify_insecure: bool = False
    kubernetes: Mapping[str, kubernetes_platform.PodSettings] = field(default_factory=dict)
    cluster: ClusterShape | None = None
    dataflow: DataflowOptions | None = None


def make_pipeline(options: Options) -> Any:
    """Returns the pipeline, a kfp GraphComponent for KFP's compiler."""
    flags = flag_table.of_pipeline()
    # KFP allows no outputs from inside an exit handler.
    outputs = None if options.notify else Outputs

    def chain(*values: Any) -> Any:
        parameters = dict(zip((flag.name for flag in flags), values, strict=True))
        with _exit_handler(options):
            connected = _Chain(parameters, options).connect()
        return connected if outputs else None

    chain.__doc__ = _SUMMARY + "".join(f"        {flag.name}: {flag.help}\n" for flag in flags)
    return dsl.pipeline(name=NAME)(_with_signature(chain, flags, outputs))


@dataclass(frozen=True, slots=True)
class _Chain:
    """The steps from resolve to register.

    Attributes:
        parameters: the pipeline's parameters, by flag name.
    """

    parameters: Mapping[str, Any]
    options: Options

    def connect(self) -> Outputs:
        """Adds the tasks to the pipeline that KFP is tracing."""
        resolved = self._add("resolve").outputs
        built = self._add(
            "build_tfrecords",
            train_metadata=resolved["train_sources"],
            eval_metadata=resolved["eval_sources"],
            fingerprint=resolved["fingerprint"],
        ).outputs
        trained = self._add(
            "train",
            data=built["data"],
            checkpoint_path=resolved["checkpoint"],
            checkpoint_version=resolved["checkpoint_version"],
            estimator_version=resolved["estimator_version"],
            pipeline_root=dsl.PIPELINE_ROOT_PLACEHOLDER,
        ).outputs
        evaluated = self._add(
            "evaluate",
            data=built["data"],
            model=trained["model"],
            champion_folder=resolved["champion_folder"],
            champion_version=resolved["champion_version"],
            estimator_version=resolved["estimator_version"],
        ).outputs
        gated = self._add("gate", evaluation=evaluated["evaluation"]).outputs
        # Nested conditions: KFP drops the first of two that are joined by `and`, and kfp.local reads task outputs in
        # inner conditions only.
        has_champion = self.parameters["champion"] != ""
        passed = gated["passed"] == True  # noqa: E712 - builds KFP's condition
        with dsl.If(has_champion, name="champion"), dsl.If(passed, name="passed"):
            self._add(
                "register",
                model=trained["model"],
                evaluation=evaluated["evaluation"],
                in_service=resolved["in_service"],
                reason=gated["reason"],
                run=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
            )
        return Outputs(
            data=built["data"],
            model=trained["model"],
            evaluation=evaluated["evaluation"],
            passed=gated["passed"],
            reason=gated["reason"],
        )

    def _add(self, step: str, **inputs: Any) -> Any:
        """Adds a step's task: its flags are the pipeline's parameters, except where `inputs` replaces them."""
        flags = {flag.name: self.parameters[flag.name] for flag in flag_table.of_step(step)}
        component, cluster = COMPONENTS[step], self.options.cluster
        if cluster and step == flag_table.TRAIN_STEP:
            component, inputs = launch_cluster, inputs | clusters.OF_THE_RUN | {"cluster": cluster.to_json()}
        if (dataflow := self.options.dataflow) and step == BUILD_STEP:
            component, inputs = launch_dataflow, inputs | build_runner.OF_THE_RUN | {"dataflow": dataflow.to_json()}
        task = component(**flags | inputs)
        _configure(task, step, self.options)
        if cluster and cluster.image and component is launch_cluster:
            task.set_container_image(self.options.images["resolve"])  # has no TensorFlow, which the tasks' image has
        return task


def _exit_handler(options: Options) -> Any:
    """A context whose tasks are followed by the notify step, whatever their outcome; an empty one without --notify."""
    if not options.notify:
        return contextlib.nullcontext()
    task = COMPONENTS[NOTIFY](
        destination=options.notify, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, insecure=options.notify_insecure
    )
    task.set_container_image(options.images[NOTIFY]).set_caching_options(False)
    _configure_pod(task, NOTIFY, options)
    return dsl.ExitHandler(task, name="notify")


def _configure(task: Any, step: str, options: Options) -> None:
    """Sets the task's image, caching, resources and retries."""
    task.set_container_image(options.images[step])
    if step in NEVER_CACHED:
        task.set_caching_options(False)
    if step in options.cpu:
        task.set_cpu_limit(options.cpu[step])
    if step in options.memory:
        task.set_memory_limit(options.memory[step])
    if step in options.accelerator:
        kind, _, count = options.accelerator[step].partition(":")
        task.set_accelerator_type(kind).set_accelerator_limit(int(count))
    if options.retries:
        task.set_retry(options.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=_RETRY_WINDOW)
    _configure_pod(task, step, options)


def _configure_pod(task: Any, step: str, options: Options) -> None:
    if step in options.kubernetes:
        kubernetes_platform.apply(task, options.kubernetes[step])


def _with_signature(function: Callable[..., Any], flags: list[flag_table.Flag], outputs: type | None) -> Any:
    """Sets the name, signature and annotations of `function`, from which KFP reads a pipeline's parameters and outputs,
    and returns it."""
    parameters = [
        inspect.Parameter(
            flag.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=flag.pipeline_default, annotation=flag.type
        )
        for flag in flags
    ]
    function.__name__ = NAME.replace("-", "_")
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters, return_annotation=outputs or inspect.Signature.empty
    )
    function.__annotations__ = {flag.name: flag.type for flag in flags} | ({"return": outputs} if outputs else {})
    return function
