"""The form of class names in which they are stored and compared, wherever they come from."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence

from tf_image_classification.errors import abridged

# Zero-width spaces, byte-order marks, marks of direction and soft hyphens. Not the joiners, which words of Persian and
# Hindi, and emoji, are written with.
_INVISIBLE = "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_AROUND = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+\Z")
_UNSEEN = re.compile(rf"[{_INVISIBLE}\x00-\x1f\x7f]|[^\S ]")
_JOINERS = re.compile("[\u200c\u200d]")

_log = logging.getLogger(__name__)


def canonical(name: str) -> str:
    """A class name in NFC, without white space and invisible characters around it.

    The same text has several forms in Unicode (https://unicode.org/reports/tr15/): macOS writes the names of files in
    NFD, other systems and keyboards write NFC.
    """
    return _AROUND.sub("", unicodedata.normalize("NFC", name))


def announce_unseen(task: str, labels: Sequence[str]) -> None:
    """Warns of class names with characters that cannot be seen: two names may look the same and are two classes."""
    names = set(labels)
    if unseen := [name for name in labels if _UNSEEN.search(name) or _JOINERS.sub("", name) in names - {name}]:
        _log.warning(
            "Class names of %s hold characters that cannot be seen, such as a zero-width or no-break space, and are "
            "different from names without them: %s",
            task,
            abridged([ascii(name) for name in unseen]),
        )
