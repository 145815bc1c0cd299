"""Paths with a date in them: `gs://bucket/photos/dt={date}` is the newest that exists."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Sequence

from tf_image_classification import storage
from tf_image_classification.errors import FlagError

PLACEHOLDER = "{date}"
_MAX_COMMAS = 4  # in a path with {date}: each is another look-up


def fill_in(metadata: str, today: dt.date) -> str:
    """Metadata with {date} in each path replaced by the newest date up to today that exists.

    Commas separate paths, but for those within one that exists: of several, the longest counts, as in split_metadata.

    Raises:
        FlagError: no date has data, or a wildcard precedes {date}.
    """
    words = metadata.split(",")
    filled: list[str] = []
    while words:
        if PLACEHOLDER not in words[0]:
            filled.append(words.pop(0))
            continue
        before, after = _parts_of_one_path(filled[::-1], words)
        for back, ahead in sorted(itertools.product(range(before + 1), range(1, after + 1)), key=sum, reverse=True):
            try:
                path = newest(",".join([*filled[len(filled) - back :], *words[:ahead]]).strip(), today)
            except FlagError:
                continue
            filled, words = [*filled[: len(filled) - back], path], words[ahead:]
            break
        else:
            newest(words[0].strip(), today)
    return ",".join(filled)


def _parts_of_one_path(before: Sequence[str], words: Sequence[str]) -> tuple[int, int]:
    """How many words before the first one, the last of them first, and from it on can belong to one path."""
    back = 0
    if not _is_absolute(words[0]):
        for word in before[:_MAX_COMMAS]:
            back += 1
            if _is_absolute(word):
                break
    ahead = itertools.takewhile(lambda word: not _is_absolute(word), words[1 : 1 + _MAX_COMMAS])
    return back, 1 + len(list(ahead))


def _is_absolute(word: str) -> bool:
    return word.strip().startswith(("/", storage.GCS_SCHEME))


def newest(path: str, today: dt.date) -> str:
    """`path` with {date} replaced by the newest date (YYYY-MM-DD) that has data and is not after `today`.

    {date} may be a part of a folder's or a file's name. Of several, the first decides.

    Raises:
        FlagError: no date has data, or a wildcard precedes {date}.
    """
    if PLACEHOLDER not in path:
        return path
    before, _, _ = path.partition(PLACEHOLDER)
    if re.search(r"[*?\[]", before):
        raise FlagError(
            "A wildcard precedes {date}", received=path, expected="{date} in a folder that is named in full"
        )
    folder, slash, prefix = before.rpartition("/")
    dates = {
        date
        for name in storage.names_in(folder + slash or ".")
        if name.startswith(prefix) and _is_date(date := name[len(prefix) :][:10]) and date <= today.isoformat()
    }
    for date in sorted(dates, reverse=True):
        if storage.glob(dated := path.replace(PLACEHOLDER, date)):
            return dated
    raise FlagError(
        "No data of today or an earlier date found",
        received=path,
        expected=f"a date as {today} instead of {{date}}",
    )


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):  # fromisoformat also takes 2030W011 and the like
        return False
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True
