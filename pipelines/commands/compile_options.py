"""The options that are fixed when the pipeline is compiled, and --template, which replaces the compilation."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from images import catalog
from pipelines import template
from pipelines.commands import build_options
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import BUILD_STEP, TRAIN_STEP

if TYPE_CHECKING:
    from pipelines.definition import Options
    from tf_image_classification.launch.job import ClusterShape

_TENSORBOARD = re.compile(r"projects/[^/]+/locations/[^/]+/tensorboards/[^/]+")


def add_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options of the compilation."""
    parser.add_argument(
        "--image_registry",
        default=catalog.REGISTRY,
        help="images are REGISTRY/IMAGE:TAG (default: %(default)s)",
    )
    parser.add_argument(
        "--image_tag",
        default="",
        metavar="TAG",
        help="never one that moves, such as latest (default: a hash of each image's content)",
    )
    add_build_options(parser)
    for name, value, what in (
        ("cpu", "N", "cores"),
        ("memory", "NG", "memory, as 32G, on Kubeflow also 32Gi,"),
        (
            "accelerator",
            "TYPE:N",
            "accelerators, as NVIDIA_TESLA_T4:1 on Vertex AI and nvidia.com/gpu:1 on Kubeflow: the step runs in the "
            "GPU variant of its image;",
        ),
    ):
        text = f"{what} of the training step, or of STEP; may be given several times"
        parser.add_argument(f"--{name}", action="append", default=[], metavar=f"[STEP=]{value}", help=text)
    build_options.add_options(parser)
    add_cluster_options(parser)
    parser.add_argument("--spot", action="store_true", help="Vertex AI: train on machines that it may take back")
    parser.add_argument(
        "--tensorboard",
        default="",
        metavar="NAME",
        help="Vertex AI: also show the training in projects/P/locations/L/tensorboards/ID",
    )
    parser.add_argument(
        "--retries", type=int, default=0, metavar="N", help="how often a failed step is retried (default: %(default)s)"
    )
    parser.add_argument(
        "--notify",
        default="",
        metavar="URL|TOPIC",
        help="notifies on failure: a URL that accepts JSON, or a Pub/Sub topic projects/P/topics/T; the compiled "
        "pipeline shows it",
    )
    parser.add_argument(
        "--notify_insecure", action="store_true", help="allows --notify an http:// URL, and one of this machine"
    )
    parser.add_argument(
        "--kubernetes",
        default="",
        metavar="FILE.yaml",
        help="Kubeflow: Secrets, volumes, node selectors, tolerations and timeouts of the steps' pods",
    )


def add_cluster_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options that say how many tasks train."""
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="machines that train together; the training step launches them, and --cpu, --memory and --accelerator "
        "are of each (default: %(default)s)",
    )
    parser.add_argument(
        "--parameter_servers",
        type=int,
        default=0,
        metavar="M",
        help="machines that hold the variables: training is asynchronous (default: none, synchronous)",
    )
    parser.add_argument("--evaluator", action="store_true", help="evaluate on a machine of its own meanwhile")


def add_build_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options that say for which images the default tags are."""
    for name, value, default in (
        ("base", "IMAGE", "the pinned one"),
        ("user", "UID:GID", "65532:65532"),
        ("platform", "OS/PROCESSOR", "linux/amd64"),
    ):
        text = f"what `python -m images build` was given as --{name} (default: {default})"
        parser.add_argument(f"--image_{name}", default="", metavar=value, help=text)


def built_with(arguments: argparse.Namespace) -> dict[str, str]:
    """What the images were built with, as of `compile.image_references`; '' for what was not given."""
    return {name: getattr(arguments, f"image_{name}", None) or "" for name in ("tag", "base", "user", "platform")}


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """Adds --template and the options of the compilation without it."""
    group = parser.add_argument_group("Pipeline")
    group.add_argument(
        "--template", metavar="FILE", help="a compiled pipeline, local or gs:// (default: compiles this checkout's)"
    )
    compilation = parser.add_argument_group("Compilation, without --template")
    add_options(compilation)
    defaults = {}
    for action in compilation._group_actions:
        defaults[action.dest] = action.default
        action.help = (action.help or "").replace("%(default)s", str(action.default))
        action.default = None  # so that an option which is given is told from one which is not
    parser.set_defaults(compilation=defaults)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of the options of the compilation that are given, at their defaults or not."""
    values = {name: getattr(arguments, name) for name in arguments.compilation}
    return {name: value for name, value in values.items() if value is not None}


def read(arguments: argparse.Namespace) -> Options:
    """The checked options of the compilation.

    Raises:
        FlagError: an option has an invalid value.
    """
    from pipelines import build_runner, kubernetes_file
    from pipelines.compile import image_references, parse_by_step
    from pipelines.definition import Options
    from tf_image_classification.promotion import notify

    if arguments.retries < 0:
        raise FlagError("Invalid value for --retries", received=arguments.retries, expected="a whole number >= 0")
    if arguments.kubernetes and arguments.backend == "vertex":
        raise FlagError("--kubernetes is for Kubeflow", received=arguments.kubernetes, expected="--backend kubeflow")
    if arguments.notify or arguments.notify_insecure:
        notify.check(arguments.notify, insecure=arguments.notify_insecure)
    limits = {name: parse_by_step(name, getattr(arguments, name)) for name in ("cpu", "memory", "accelerator")}
    on_dataflow = arguments.build_runner == build_options.DATAFLOW
    images = image_references(
        arguments.image_registry,
        accelerator=limits["accelerator"],
        **built_with(arguments),
        build_image=build_runner.IMAGE if on_dataflow else "",
    )
    return Options(
        images=images,
        dataflow=build_options.read(arguments, images[BUILD_STEP]),
        cluster=_cluster(arguments, limits, images),
        **limits,
        retries=arguments.retries,
        notify=arguments.notify,
        notify_insecure=arguments.notify_insecure,
        kubernetes=kubernetes_file.read(arguments.kubernetes, notify=bool(arguments.notify))
        if arguments.kubernetes
        else {},
    )


def _cluster(
    arguments: argparse.Namespace, limits: Mapping[str, dict[str, str]], images: Mapping[str, str]
) -> ClusterShape | None:
    """The cluster that the options describe; None for one machine.

    Args:
        limits: `cpu`, `memory` and `accelerator` by step. Those of the training step are removed: its tasks have them.
    """
    from tf_image_classification.launch.job import ClusterShape

    cluster = local_cluster(arguments)
    if arguments.tensorboard and not _TENSORBOARD.fullmatch(arguments.tensorboard):
        raise FlagError(
            "Invalid value for --tensorboard",
            received=arguments.tensorboard,
            expected="projects/P/locations/L/tensorboards/ID",
        )
    if cluster is None and not arguments.spot and not arguments.tensorboard:
        return None
    cpu, memory, accelerator = (limits[name].pop(TRAIN_STEP, "") for name in ("cpu", "memory", "accelerator"))
    return replace(
        cluster or ClusterShape(replicas=1),
        spot=arguments.spot,
        tensorboard=arguments.tensorboard,
        image=images[TRAIN_STEP],
        cpu=cpu,
        memory=memory,
        accelerator=accelerator,
    )


def local_cluster(arguments: argparse.Namespace) -> ClusterShape | None:
    """The tasks that the options of `add_cluster_options` describe; None for one.

    Raises:
        FlagError: a number is too small.
    """
    from tf_image_classification.launch.job import ClusterShape

    for name, least in (("replicas", 1), ("parameter_servers", 0)):
        if getattr(arguments, name) < least:
            raise FlagError(
                f"Invalid value for --{name}",
                received=getattr(arguments, name),
                expected=f"a whole number >= {least}",
            )
    cluster = ClusterShape(arguments.replicas, arguments.parameter_servers, arguments.evaluator)
    return None if cluster == ClusterShape(replicas=1) else cluster


def check_images(arguments: argparse.Namespace, spec: template.Spec) -> None:
    """Checks that the service can pull the images of a pipeline that is to be sent to it.

    Raises:
        FlagError: it cannot.
    """
    from pipelines import image_check

    image_check.check(template.images(spec), arguments.backend, built_with(arguments))


def load_template(arguments: argparse.Namespace) -> template.Pipeline | None:
    """The pipeline of --template; None without one.

    Raises:
        FlagError: it cannot be read, or an option of the compilation is given with it.
    """
    if not arguments.template:
        return None
    for name in given(arguments):
        raise FlagError(
            f"--{name} cannot be given with --template",
            hint="It is fixed in the template: give it to `python -m pipelines compile`.",
        )
    return template.load(arguments.template)


def compile_checkout(arguments: argparse.Namespace, compilation: Mapping[str, Any] | None = None) -> template.Pipeline:
    """This checkout's pipeline, compiled with the options.

    Args:
        compilation: options of the compilation, instead of those given.

    Raises:
        FlagError: an option has an invalid value, or one that the backend does not take.
    """
    from pipelines.compile import compile_pipeline

    chosen = given(arguments) if compilation is None else compilation
    options = read(argparse.Namespace(**{**vars(arguments), **arguments.compilation, **chosen}))
    with storage.temporary_dir() as folder:
        compiled = storage.join(folder, "pipeline.yaml")
        compile_pipeline(compiled, options, arguments.backend)
        return template.load(compiled)
