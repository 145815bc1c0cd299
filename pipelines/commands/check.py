"""python -m pipelines check: what stands between this machine and a first run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from images import catalog
from pipelines import template
from pipelines.backends import options
from pipelines.checks.lines import Line, Verdict
from pipelines.checks.plan import Plan
from pipelines.commands import compile_options, parameter_files, parameters, run_options
from pipelines.commands.subparsers import SubParsers, add_command
from tf_image_classification import storage
from tf_image_classification.errors import printable

_ALWAYS = ("pipeline_root", "train_metadata")
_ON_VERTEX = ("project", "location", "service_account", "accelerator")


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "check",
        _check,
        "Lists what stands between this machine and a first run, each with the command that mends it.",
        "It takes the options of `submit`, checks those that are given, and changes nothing. The exit code is 1 if "
        "something failed.",
    )
    options.add_options(parser)
    compile_options.add_template_options(parser)
    run_options.add_shared_options(parser.add_argument_group("Run"), of_new=True)
    parameters.add_options(parser, of_new=True)


def _check(arguments: argparse.Namespace) -> int:
    given = compile_options.load_template(arguments)
    values = _given_values(arguments, given.spec if given else None)
    pipeline = given or compile_options.compile_checkout(arguments)
    plan = _plan(arguments, pipeline.spec, values)
    failed = 0
    for line in _checklist(plan, arguments):
        failed += line.verdict == Verdict.FAIL
        print(printable(f"{line.verdict:<12} {line.name:<22} {line.found}"), flush=True)
        if line.mend:
            print(printable(f"{'':<12} {line.mend}"), flush=True)
    names = [*(_ON_VERTEX if arguments.backend == "vertex" else ()), *_ALWAYS]
    missing = [f"--{name}" for name in names if not (getattr(arguments, name, None) or values.get(name))]
    if arguments.backend == "vertex" and _has_local_images(arguments) and not arguments.template:
        missing.append("--image_registry")
    if missing:
        print(f"Not given, and so not checked: {', '.join(missing)}")
    print(f"{failed} of these would stop a run." if failed else "Nothing that was checked stands in the way of a run.")
    return 1 if failed else 0


def _checklist(plan: Plan, arguments: argparse.Namespace) -> Iterator[Line]:
    if arguments.backend == "kubeflow":
        from pipelines.checks import kubeflow

        return kubeflow.checklist(plan, arguments)
    from pipelines.checks import vertex

    return vertex.checklist(plan, lambda: options.connect(arguments))


def _given_values(arguments: argparse.Namespace, spec: template.Spec | None) -> dict[str, object]:
    """The pipeline's parameters that are given; none is required."""
    flags = {flag.name: flag for flag in template.signature(spec)}
    in_file = parameter_files.read(arguments.params, flags) if arguments.params else {}
    given = parameters.combine(spec, {}, {**in_file, **parameters.parse(arguments, spec)})
    return {name: flags[name].parse(value) for name, value in given.items() if name in flags}


def _plan(arguments: argparse.Namespace, spec: template.Spec, values: dict[str, object]) -> Plan:
    local = arguments.backend == "vertex" and not arguments.template and _has_local_images(arguments)
    paths = {}
    for flag in template.signature(spec):
        value = str(values.get(flag.name) or "")
        parts = tuple(part.strip() for part in (value.split(",") if flag.is_list else [value]))
        if flag.path == "read" and parts[0].startswith((storage.GCS_SCHEME, storage.GCS_MOUNT)):
            paths[flag.name] = parts
    return Plan(
        project=arguments.project or "",
        location=arguments.location or "",
        images=frozenset() if local else frozenset(template.images(spec)),
        built_with=compile_options.built_with(arguments),
        pipeline_root=arguments.pipeline_root or "",
        service_account=arguments.service_account or "",
        accelerators=_accelerators(spec),
        paths=paths,
    )


def _has_local_images(arguments: argparse.Namespace) -> bool:
    """Whether --image_registry is the prefix that `make images` uses by default, which no registry has."""
    return (arguments.image_registry or catalog.REGISTRY) == catalog.REGISTRY


def _accelerators(spec: template.Spec) -> dict[str, int]:
    """The accelerators of the pipeline's machines, each with the largest number in one."""
    largest: dict[str, int] = {}
    for executor in spec["deploymentSpec"]["executors"].values():
        if wanted := executor.get("container", {}).get("resources", {}).get("accelerator"):
            kind, count = str(wanted["resourceType"]), int(wanted["resourceCount"])
            largest[kind] = max(count, largest.get(kind, 0))
    return largest
