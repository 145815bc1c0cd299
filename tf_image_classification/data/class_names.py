"""The form of class names in which they are stored and compared, wherever they come from, and what none can be."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence

from tf_image_classification import storage
from tf_image_classification.errors import abridged

MAX_CLASSES = 100_000  # of a task; what has more distinct values is an identifier or a number, and no class
MAX_CHARACTERS = 1000  # of a name

# Zero-width spaces, byte-order marks, marks of direction and soft hyphens. Not the joiners, which words of Persian and
# Hindi, and emoji, are written with.
_INVISIBLE = "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_AROUND = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+\Z")
_UNSEEN = re.compile(rf"[{_INVISIBLE}\x00-\x1f\x7f]|[^\S ]")
_JOINERS = re.compile("[\u200c\u200d]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # C0 without white space, DEL and C1

_log = logging.getLogger(__name__)


def canonical(name: str) -> str:
    """A class name in NFC, without white space and invisible characters around it.

    The same text has several forms in Unicode (https://unicode.org/reports/tr15/): macOS writes the names of files in
    NFD, other systems and keyboards write NFC. A name that is too long to be a class's stays as it is: the time of
    normalizing grows with the square of a sequence of combining characters.
    """
    if len(name) > MAX_CHARACTERS:
        return name
    return _AROUND.sub("", unicodedata.normalize("NFC", name))


def fault(name: str) -> str | None:
    """Why a canonical name can be no class's, as the reason of a rejection; None if it can.

    A labels file could not hold it, or a terminal would act on it. What merely cannot be seen, such as a tab or a mark
    of direction, is taken as it is, see `announce_unseen`.
    """
    if not name:
        return "no label"
    if len(name) > MAX_CHARACTERS:
        return f"label has more than {MAX_CHARACTERS:,} characters"
    if len(name.splitlines()) > 1:
        return "label has a line break"
    if _CONTROL.search(name):
        return "label has a control character"
    return None if storage.is_unicode(name) else "label is not UTF-8"


def announce_unseen(task: str, labels: Sequence[str]) -> None:
    """Warns of class names with characters that cannot be seen: two names may look the same and are two classes."""
    names = set(labels)
    if unseen := [name for name in labels if _UNSEEN.search(name) or _without_joiners(name) in names]:
        _log.warning(
            "Class names of %s hold characters that cannot be seen, such as a zero-width or no-break space, and are "
            "different from names without them: %s",
            task,
            abridged([ascii(name) for name in unseen]),
        )


def _without_joiners(name: str) -> str | None:
    """The name without joiners; None if it has none."""
    plain = _JOINERS.sub("", name)
    return None if plain == name else plain
