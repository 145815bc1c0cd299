"""python -m pipelines check: what stands between this machine and a first run."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

from images import catalog
from pipelines import build_runner, clusters, template
from pipelines.backends import options
from pipelines.checks.lines import Line, Verdict
from pipelines.checks.plan import Plan
from pipelines.commands import compile_options, parameter_files, parameters, run_options
from pipelines.commands.subparsers import SubParsers, add_command
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.errors import printable


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
    run_options.add_options(parser, of_new=True)
    parameters.add_options(parser, of_new=True)


def _check(arguments: argparse.Namespace) -> int:
    options.check_backend(arguments)
    given = compile_options.load_template(arguments)
    values = _given_values(arguments, given.spec if given else None)
    plan = _plan(arguments, given or compile_options.compile_checkout(arguments), values)
    verdicts: Counter[Verdict] = Counter()
    for line in _checklist(plan, arguments):
        verdicts[line.verdict] += 1
        print(printable(f"{line.verdict:<12} {line.name:<22} {line.found}"), flush=True)
        if line.mend:
            print(printable(f"{'':<12} {line.mend}"), flush=True)
    if missing := _not_given(arguments, plan):
        print(f"Not given, and so not checked: {', '.join(missing)}")
    failed, unknown, fine = (verdicts[verdict] for verdict in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.OK))
    print(f"{failed} failed, {unknown} could not be told, {fine} are OK.")
    return 1 if failed else 0


def _not_given(arguments: argparse.Namespace, plan: Plan) -> list[str]:
    needed = {
        "pipeline_root": plan.pipeline_root,
        "train_metadata": arguments.template or "train_metadata" in plan.paths,
    }
    if arguments.backend == "vertex":
        needed |= {
            "project": plan.project,
            "location": plan.location,
            "image_registry": plan.images,
            "service_account": plan.service_account,
            "accelerator": plan.accelerators or plan.spot_accelerators,
        }
    return [f"--{name}" for name, given in needed.items() if not given]


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
    for name in given:
        if spec is None and name not in flags:
            raise flag_table.unknown_flag(name, flags)
    parsed = {name: flags[name].parse(value) for name, value in given.items() if name in flags}
    values: dict[str, object] = {name: value for name, value in parsed.items() if value is not None}
    if arguments.backend == "kubeflow" or (arguments.project and arguments.location):  # which ids of models are in
        values |= run_options.check_together(spec, values, arguments)
    return values


def _plan(arguments: argparse.Namespace, pipeline: template.Pipeline, values: dict[str, object]) -> Plan:
    # The prefix that `make images` uses by default, which no registry has.
    registry = arguments.image_registry or catalog.REGISTRY
    local = arguments.backend == "vertex" and not arguments.template and registry == catalog.REGISTRY
    paths = {}
    for flag in template.signature(pipeline.spec):
        value = str(values.get(flag.name) or "")
        mounted = arguments.backend == "vertex" and value.startswith(storage.GCS_MOUNT)
        if flag.path == "read" and ("://" in value or mounted):
            paths[flag.name] = value
    accelerators, spot_accelerators = _accelerators(pipeline.spec)
    return Plan(
        submission=run_options.new_submission(arguments, pipeline, values),
        project=arguments.project or "",
        location=arguments.location or "",
        images=frozenset() if local else frozenset(template.images(pipeline.spec)),
        built_with=compile_options.built_with(arguments),
        accelerators=accelerators,
        spot_accelerators=spot_accelerators,
        has_cluster=clusters.of_spec(pipeline.spec) is not None,
        dataflow=build_runner.of_spec(pipeline.spec),
        paths=paths,
    )


def _accelerators(spec: template.Spec) -> tuple[dict[str, int], dict[str, int]]:
    """The accelerators of the pipeline's machines, each with the largest number in one step; and those of Spot ones."""
    largest: dict[str, int] = {}
    spot: dict[str, int] = {}
    for executor in spec["deploymentSpec"]["executors"].values():
        if wanted := executor.get("container", {}).get("resources", {}).get("accelerator"):
            kind, count = str(wanted["resourceType"]), int(wanted["resourceCount"])
            largest[kind] = max(count, largest.get(kind, 0))
    cluster = clusters.of_spec(spec)
    if cluster and cluster.accelerator:
        kind, _, number = cluster.accelerator.partition(":")
        machines = spot if cluster.spot else largest
        machines[kind] = max(int(number) * (cluster.replicas + cluster.evaluator), machines.get(kind, 0))
    return largest, spot
