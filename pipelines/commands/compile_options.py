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
    "image_user",
    "image_platform",
    "cpu",
    "memory",
    "accelerator",
    "retries",
    "notify",
    "notify_insecure",
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
    add_build_options(parser)
    for name, value, what in (
        ("cpu", "N", "cores"),
        ("memory", "NG", "memory"),
        ("accelerator", "TYPE:N", "accelerators, as NVIDIA_TESLA_T4:1: the step runs in the GPU variant of its image;"),
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
    return {name: getattr(arguments, f"image_{name}", "") for name in ("tag", "base", "user", "platform")}


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
    from pipelines.compile import image_references, parse_by_step
    from pipelines.definition import Options
    from tf_image_classification.promotion import notify

    if arguments.retries < 0:
        raise FlagError("Invalid value for --retries", received=arguments.retries, expected="a whole number >= 0")
    if arguments.notify or arguments.notify_insecure:
        notify.check(arguments.notify, insecure=arguments.notify_insecure)
    accelerator = parse_by_step("accelerator", arguments.accelerator)
    return Options(
        images=image_references(arguments.image_registry, accelerator=accelerator, **built_with(arguments)),
        cpu=parse_by_step("cpu", arguments.cpu),
        memory=parse_by_step("memory", arguments.memory),
        accelerator=accelerator,
        retries=arguments.retries,
        notify=arguments.notify,
        notify_insecure=arguments.notify_insecure,
    )


def check_images(arguments: argparse.Namespace, spec: template.Spec) -> None:
    """Checks that the service can pull the images of a pipeline that is to be sent to it.

    Raises:
        FlagError: it cannot.
    """
    from pipelines import image_check

    image_check.check(template.images(spec), arguments.backend, built_with(arguments))


def load_template(arguments: argparse.Namespace) -> template.Spec | None:
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


def compile_spec(arguments: argparse.Namespace) -> template.Spec:
    """This checkout's pipeline, compiled with the options.

    Raises:
        FlagError: an option has an invalid value.
    """
    from pipelines.compile import compile_pipeline

    options = read(arguments)
    with storage.temporary_dir() as folder:
        compiled = storage.join(folder, "pipeline.yaml")
        compile_pipeline(compiled, options)
        return template.load(compiled)
