"""Paths with a date in them: `gs://bucket/photos/dt={date}` is the newest that exists."""

from __future__ import annotations

import datetime as dt
import re

from tf_image_classification import storage
from tf_image_classification.errors import FlagError

PLACEHOLDER = "{date}"


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
