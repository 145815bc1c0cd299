"""The Unicode forms of a path: macOS writes the names of files in NFD, most other systems and programs write NFC."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator

_MAX_MIXED = 5  # parts of a path whose forms are tried in every combination


def other_forms(path: str) -> Iterator[str]:
    """The path in NFC, in NFD, and with some of its parts in one form and some in the other; not as it is.

    Nothing for ASCII. In an archive from a Mac, the files may be in one form and the folders in the other.
    """
    if path.isascii():
        return
    forms = [
        tuple(dict.fromkeys((unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))))
        for part in path.split("/")
    ]
    whole = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
    is_mixed = 1 < sum(len(of_part) > 1 for of_part in forms) <= _MAX_MIXED
    mixed = map("/".join, itertools.product(*forms)) if is_mixed else ()
    yield from (form for form in dict.fromkeys((*whole, *mixed)) if form != path)
