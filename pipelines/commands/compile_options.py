"""The options that are fixed when the pipeline is compiled, and --template, which replaces the compilation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from images import catalog
from pipelines import template
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

if TYPE_CHECKING:
    from pipelines.definition import Options

_FIXED = (
    "image_tag",
    "image_base",
    "cpu",
    "memory",
    "accelerator",
    "retries",
    "notify",
    "notify_insecure",
    "kubernetes",
)


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
        help="never one that moves, such as latest (default: a hash of each image's content)",
    )
    add_image_base(parser)
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


def add_image_base(parser: argparse._ActionsContainer) -> None:
    """Adds --image_base, which says for which images the default tags are."""
    parser.add_argument(
        "--image_base",
        default="",
        metavar="IMAGE",
        help="what `python -m images build` was given as --base (default: the pinned one)",
    )


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """Adds --template and the options of the compilation without it."""
    group = parser.add_argument_group("Pipeline")
    group.add_argument(
        "--template", metavar="FILE", help="a compiled pipeline, local or gs:// (default: compiles this checkout's)"
    )
    add_options(parser.add_argument_group("Compilation, without --template"))


def read(arguments: argparse.Namespace) -> Options:
    """The checked options of the compilation.

    Raises:
        FlagError: an option has an invalid value.
    """
    from pipelines import kubernetes_file
    from pipelines.compile import image_references, parse_by_step
    from pipelines.definition import Options
    from tf_image_classification.promotion import notify

    if arguments.retries < 0:
        raise FlagError("Invalid value for --retries", received=arguments.retries, expected="a whole number >= 0")
    if arguments.kubernetes and arguments.backend == "vertex":
        raise FlagError("--kubernetes is for Kubeflow", received=arguments.kubernetes, expected="--backend kubeflow")
    if arguments.notify or arguments.notify_insecure:
        notify.check(arguments.notify, insecure=arguments.notify_insecure)
    accelerator = parse_by_step("accelerator", arguments.accelerator)
    return Options(
        images=image_references(arguments.image_registry, arguments.image_tag, accelerator, arguments.image_base),
        cpu=parse_by_step("cpu", arguments.cpu),
        memory=parse_by_step("memory", arguments.memory),
        accelerator=accelerator,
        retries=arguments.retries,
        notify=arguments.notify,
        notify_insecure=arguments.notify_insecure,
        kubernetes=kubernetes_file.read(arguments.kubernetes, notify=bool(arguments.notify))
        if arguments.kubernetes
        else {},
    )


def load_template(arguments: argparse.Namespace) -> template.Pipeline | None:
    """The pipeline of --template; None without one.

    Raises:
        FlagError: it cannot be read, or an option of the compilation is given with it.
    """
    if not arguments.template:
        return None
    for name in _FIXED:
        if getattr(arguments, name):
            raise FlagError(
                f"--{name} cannot be given with --template",
                hint="It is fixed in the template: give it to `python -m pipelines compile`.",
            )
    return template.load(arguments.template)


def compile_checkout(arguments: argparse.Namespace) -> template.Pipeline:
    """This checkout's pipeline, compiled with the options.

    Raises:
        FlagError: an option has an invalid value, or one that the backend does not take.
    """
    from pipelines.compile import compile_pipeline

    options = read(arguments)
    with storage.temporary_dir() as folder:
        compiled = storage.join(folder, "pipeline.yaml")
        compile_pipeline(compiled, options, arguments.backend)
        return template.load(compiled)
