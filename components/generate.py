"""`make generate`: writes component signatures, components' READMEs, and the tables of flags and networks in docs/ and
README.md.

A lightweight KFP component ships the source of its function, so its signature has to be spelled out there; this keeps
it the table's.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tf_image_classification import flags as flag_table
from tf_image_classification import library_output
from tf_image_classification.flag_types import BUILD_STEP
from tf_image_classification.flags import Flag

ROOT = Path(__file__).resolve().parents[1]
_SLIM_WEIGHTS = "[slim's checkpoints](docs/checkpoints.md#slims-released-checkpoints)"


def signature(step: str) -> str:
    """The parameters of a component that are flags, as source lines."""
    return "".join(
        f"    {flag.name}: {flag.type.__name__} = {flag.pipeline_default!r},\n".replace("'", '"')
        for flag in flag_table.of_step(step)
    )


def flags_table() -> str:
    """The table of docs/flags.md, in Markdown, group by group."""
    parts = []
    for group in dict.fromkeys(flag.group for flag in flag_table.FLAGS):
        rows = "\n".join(_row(flag) for flag in flag_table.FLAGS if flag.group == group)
        parts.append(f"**{group}**\n\n| flag | default | what it does |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(flag: Flag) -> str:
    choices = f" One of: {', '.join(flag.choices)}." if flag.choices else ""
    star = " \\*" if flag.ours else ""
    default = "not set" if flag.default is None else f"`{flag.default}`"
    return f"| `{flag.name}`{star} | {default} | {_cell(flag.help)}{choices} |"


def nets_table() -> str:
    """The table of built-in networks in docs/checkpoints.md, in Markdown."""
    from tf_image_classification import nets

    rows = "".join(
        f"| `{net.name}` | {net.default_size} | {net.min_size} | {_millions(net.num_params)} | {net.preprocessing} "
        f"| `{','.join(net.head_scopes)}` |\n"
        for net in nets.NETS.values()
    )
    return (
        "| `--model_name` | default size | min size | parameters | preprocessing | exclude to "
        "fine-tune on other classes |\n"
        f"|---|---|---|---|---|---|\n{rows}"
    )


def families_table() -> str:
    """The table of built-in networks in README.md, in Markdown: all names, by where their released weights are."""
    from tf_image_classification import nets
    from tf_image_classification.imagenet_weights import FILES

    slim = _slim_checkpoints()
    groups: dict[str, list[str]] = {}
    for name in nets.NETS:
        weights = "`--checkpoint_path imagenet`" if name in FILES else _SLIM_WEIGHTS if name in slim else "none"
        groups.setdefault(weights, []).append(f"`{name}`")
    rows = "".join(f"| {', '.join(names)} | {weights} |\n" for weights, names in groups.items())
    return f"| `--model_name` | released weights |\n|---|---|\n{rows}"


def _slim_checkpoints() -> set[str]:
    """The networks in the table of slim's released checkpoints in docs/checkpoints.md."""
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    return set(re.findall(r"^\| `(\w+)` \| `\S+gz` \|", page, re.MULTILINE))


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} M"


def component_page(folder: str, step: str) -> str:
    """The README of a component: what it does, its inputs and outputs.

    Args:
        folder: of the component, in components/.
        step: whose flags it takes, and the name of its function.
    """
    component = getattr(import_module(f"components.{folder}.component"), step)
    spec, docstring = component.component_spec, inspect.getdoc(component.python_func) or ""
    described = {flag.name: flag.help for flag in flag_table.of_step(step)} | _arguments(docstring)
    summary = re.split(r"^(Args|Returns):$", docstring, maxsplit=1, flags=re.MULTILINE)[0].strip()
    inputs = "\n".join(
        f"| `{name}` | {_type(given)} | {'' if given.default is None else f'`{given.default!r}`'} | "
        f"{_cell(described[name])} |"
        for name, given in (spec.inputs or {}).items()
    )
    outputs = "\n".join(
        f"| `{name}` | {_type(given)} | {_cell(described[name])} |" for name, given in (spec.outputs or {}).items()
    )
    return (
        f"# {folder}\n\n{summary}\n\n"
        f"## Inputs\n\n| name | type | default | what it is |\n|---|---|---|---|\n{inputs}\n\n"
        f"## Outputs\n\n| name | type | what it is |\n|---|---|---|\n{outputs}\n\n(written by `make generate`)\n"
    )


def _arguments(docstring: str) -> dict[str, str]:
    """name -> text of the Args and Returns sections of a docstring."""
    return dict(re.findall(r"^ +([a-z_]+): (.+)$", docstring, re.MULTILINE))


def _type(given: Any) -> str:
    return str(given.type).removeprefix("system.").partition("@")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def generated() -> Iterator[tuple[Path, str, str]]:
    """Each generated file: its path, its content now, its content as it should be."""
    steps = {step: step for step in (*flag_table.STEPS, "notify")}
    launching = {"build_dataflow": BUILD_STEP, "train_cluster": flag_table.TRAIN_STEP}
    for folder, step in (steps | launching).items():
        path = ROOT / "components" / folder / "component.py"
        now = path.read_text()
        wanted = _replace(
            now, "    # flags: begin (written by `make generate`)\n", "    # flags: end\n", signature(step)
        )
        yield path, now, wanted
        page = path.with_name("README.md")
        yield page, page.read_text() if page.exists() else "", component_page(folder, step)
    for file_name, name, table in (
        ("docs/flags.md", "flags", flags_table()),
        ("docs/checkpoints.md", "nets", nets_table()),
        ("README.md", "nets", families_table()),
    ):
        path = ROOT / file_name
        now = path.read_text()
        begin, end = f"<!-- {name}: begin (written by `make generate`) -->\n", f"<!-- {name}: end -->\n"
        yield path, now, _replace(now, begin, end, f"\n{table}\n")


def _replace(text: str, begin: str, end: str, content: str) -> str:
    pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.DOTALL)
    return pattern.sub(lambda match: match[1] + content + match[2], text, count=1)


def main() -> None:
    """Writes the files; with --check only lists those that are out of date, and exits with 1 if any is."""
    check = sys.argv[1:] == ["--check"]
    stale = False
    with library_output.quiet():  # the networks' table needs TensorFlow
        for path, now, wanted in generated():
            if now != wanted:
                stale = True
                print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
                if not check:
                    path.write_text(wanted)  # at once: a component's README is generated from its new source
    if check and stale:
        print("Run `make generate`.")
        sys.exit(1)


if __name__ == "__main__":
    main()
