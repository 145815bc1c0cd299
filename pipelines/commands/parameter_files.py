"""The file of --params: each value is the text that is written there, as if it were on the command line.

YAML 1.1 and 1.2 read some words differently, and both differ from a command line: `yes` is true or "yes", 010 is 8 or
10, 1e-3 a text or a number. A flag that takes a text gets it as written; elsewhere what is ambiguous is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines import yaml_files
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flag

_FLAG = "--params"
_EXPECTED = "a YAML file of `flag: value` lines"
_DEFAULT_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}
_NOTHING = re.compile(r"~|null|Null|NULL|")
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS = "true or false"
# What YAML 1.1 makes of a word -> what to write instead.
_AMBIGUOUS = (
    (re.compile(r"yes|no|on|off|y|n", re.IGNORECASE), "a word that is true or false in YAML 1.1", _WORDS),
    (re.compile(r"[-+]?0[0-9_]+"), "octal in YAML 1.1", "the number without the leading 0"),
    (re.compile(r"[-+]?0[oOxXbB]\w+"), "octal, hexadecimal or binary", "a decimal number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "base 60 in YAML 1.1", "a decimal number"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*"), "a date in YAML", "a number"),
)


def read(path: str, flags: Mapping[str, Flag]) -> dict[str, object]:
    """The parameters in a YAML file of `name: value` lines, local or gs://; not yet checked.

    Args:
        path: of the file.
        flags: those of the pipeline that are flags; other parameters may be lists and mappings.

    Returns:
        Name -> the text of a flag's value, None where there is none; or the data of another parameter.

    Raises:
        FlagError: the file is not found, or contains something else; the error names the line.
    """
    import yaml

    documents = yaml_files.read_nodes(_FLAG, path, _EXPECTED)
    if not documents or (isinstance(documents[0], yaml.ScalarNode) and _is_nothing(documents[0])):
        return {}
    if len(documents) > 1 or not isinstance(documents[0], yaml.MappingNode):
        raise FlagError(f"{_FLAG} is not a mapping of flags to values", received=path, expected=_EXPECTED)
    values: dict[str, object] = {}
    for key, node in documents[0].value:
        if not isinstance(key, yaml.ScalarNode):
            raise FlagError(f"{_FLAG} is not a mapping of flags to values", received=path, expected=_EXPECTED)
        _check_tags(node, key.value)
        flag = flags.get(key.value)
        values[key.value] = _of_flag(flag, node) if flag else _data(node, key.value)
    return values


def _of_flag(flag: Flag, node: Any) -> str | None:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return _word(flag, node)
    if isinstance(node, yaml.MappingNode) or not flag.takes_several:
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        raise _invalid(flag.name, node, kind, "one value")
    words = []
    for item in node.value:
        word = _word(flag, item) if isinstance(item, yaml.ScalarNode) else None
        if not word:
            raise _invalid(flag.name, item, "an empty value or a list in a list", "a list of values")
        if "," in word:
            raise _invalid(flag.name, item, f"{word}, which the flag splits at its comma", "a value without commas")
        words.append(word)
    return ",".join(words)


def _word(flag: Flag, node: Any) -> str | None:
    if _is_nothing(node):
        return None
    if flag.type is not str:
        _check_unambiguous(flag.name, node, is_number=flag.type in (int, float))
    return str(node.value)


def _data(node: Any, name: str) -> object:
    """The value of a parameter that is no flag: a list, a mapping, or what is in one."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_data(item, name) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _data(value, name) for key, value in node.value}
    if node.style is not None:  # in quotes, or a block
        return str(node.value)
    if _is_nothing(node):
        return None
    _check_unambiguous(name, node)
    if node.value in _TRUTH:
        return _TRUTH[node.value]
    for number in (int, float):
        if re.fullmatch(r"[-+.0-9eE]+", node.value):
            try:
                return number(node.value)
            except ValueError:
                continue
    return str(node.value)


def _is_nothing(node: Any) -> bool:
    return node.style is None and _NOTHING.fullmatch(node.value) is not None


def _check_unambiguous(name: str, node: Any, *, is_number: bool = False) -> None:
    if node.style is not None:
        return
    for form, meaning, instead in _AMBIGUOUS:
        if form.fullmatch(node.value):
            expected = f"{instead}, or a text in quotes"
            if is_number:
                expected = "a number" if instead == _WORDS else instead
            raise _invalid(name, node, f"{node.value}, {meaning}", expected)


def _check_tags(node: Any, name: str) -> None:
    if node.tag not in _DEFAULT_TAGS:
        raise _invalid(name, node, f"the tag {node.tag}", "a value without a tag")
    for item in node.value if isinstance(node.value, list) else ():
        for part in item if isinstance(item, tuple) else (item,):
            _check_tags(part, name)


def _invalid(name: str, node: Any, received: str, expected: str) -> FlagError:
    line = node.start_mark.line + 1
    return FlagError(
        f"Invalid value for --{name} in {_FLAG}", received=f"in line {line}: {received}", expected=expected
    )
