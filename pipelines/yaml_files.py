"""YAML files as data: no tags that make objects, and no aliases that stand for more than a file could hold."""

from __future__ import annotations

from typing import Any

from tf_image_classification import storage
from tf_image_classification.errors import FlagError, UserError

_MAX_CHARACTERS = 10_000_000  # PyYAML takes a minute for them; a compiled pipeline has some 100,000
_MAX_NODES = 100_000  # with those that aliases repeat


def read(flag: str, path: str, expected: str) -> list[Any]:
    """The documents of a YAML file, local or gs://.

    Args:
        flag: that names the file, for messages, with its dashes.
        expected: what the file should be.

    Raises:
        FlagError: it is not found, or is no YAML.
    """
    import yaml

    try:
        text = storage.read_text(path)
        if len(text) > _MAX_CHARACTERS:
            raise FlagError(
                f"{flag} is too large", received=path, expected=f"at most {_MAX_CHARACTERS:,} characters of YAML"
            )
        return list(yaml.load_all(text, Loader=_loader()))
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or "not found"
        raise FlagError(f"Cannot read {flag}", received=f"{path} ({reason})", expected=expected) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a month 13
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FlagError(f"{flag} is not YAML", received=f"{path} ({reason:.200})", expected=expected) from None


def _loader() -> type:
    """A SafeLoader that refuses a document in which aliases repeat each other: ten lines of them make 10^10 values."""
    import yaml

    class Loader(yaml.SafeLoader):
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

    return Loader
