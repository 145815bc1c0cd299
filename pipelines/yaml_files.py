"""YAML files: no tags that make objects, no aliases that stand for more than a file could hold, no key given twice."""

from __future__ import annotations

from typing import Any

from tf_image_classification import storage
from tf_image_classification.errors import FlagError, UserError

_MAX_CHARACTERS = 10_000_000  # PyYAML takes a minute for them; a compiled pipeline has some 100,000
_MAX_NODES = 100_000  # with those that aliases repeat


def read(flag: str, path: str, expected: str) -> list[Any]:
    """The documents of a YAML file, local or gs://, as data.

    Args:
        flag: that names the file, for messages, with its dashes.
        expected: what the file should be.

    Raises:
        FlagError: it is not found, or is no YAML.
    """
    import yaml

    return _parsed(flag, path, expected, yaml.SafeLoader)


def read_nodes(flag: str, path: str, expected: str) -> list[Any]:
    """The documents of a YAML file as yaml.Nodes: their scalars are the text that is in the file, of no type yet.

    Args and errors are those of `read`.
    """
    import yaml

    class Nodes(yaml.BaseLoader):
        def construct_document(self, node: yaml.Node) -> yaml.Node:
            return node

    return _parsed(flag, path, expected, Nodes)


def _parsed(flag: str, path: str, expected: str, base: Any) -> list[Any]:
    import yaml

    try:
        text = storage.read_text(path)
        if len(text) > _MAX_CHARACTERS:
            raise FlagError(
                f"{flag} is too large", received=path, expected=f"at most {_MAX_CHARACTERS:,} characters of YAML"
            )
        return list(yaml.load_all(text, Loader=_loader(base)))
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or "not found"
        raise FlagError(f"Cannot read {flag}", received=f"{path} ({reason})", expected=expected) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a month 13
        raise FlagError(f"{flag} is not YAML", received=f"{path} ({_reason(error):.200})", expected=expected) from None


def _reason(error: Exception) -> str:
    import yaml

    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error).partition("\n")[0] or type(error).__name__
    problem = "a tab, where YAML wants spaces" if "\\t" in str(error.problem) else error.problem
    return f"line {error.problem_mark.line + 1}: {problem}"


def _loader(base: Any) -> Any:
    """A loader that refuses a document in which aliases repeat each other: ten lines of them make 10^10 values."""
    import yaml

    class Loader(base):
        def __init__(self, stream: str) -> None:
            super().__init__(stream)
            self._sizes: dict[int, int] = {}  # id of a finished node -> nodes in it, repeated ones included

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            is_alias = self.check_event(yaml.AliasEvent)
            node = super().compose_node(parent, index)
            if node is None or (is_alias and id(node) in self._sizes):
                return node
            if is_alias:
                raise yaml.composer.ComposerError(None, None, "a value contains itself, by an alias", node.start_mark)
            inner = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in parts)
            if size > _MAX_NODES:
                raise yaml.composer.ComposerError(
                    None, None, f"its aliases stand for more than {_MAX_NODES:,} values", node.start_mark
                )
            return node

        def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            lines: dict[object, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and lines.setdefault((key.tag, key.value), line) != line:
                    raise yaml.composer.ComposerError(
                        None,
                        None,
                        f"{key.value} is given a second time, first in line {lines[key.tag, key.value]}",
                        key.start_mark,
                    )
            return node

    return Loader
