"""Sizes and versions of many objects of a bucket, from pages of its listing where they lie close together.

A page tells of 1,000 objects in one request. Where it tells of few of those that are asked for, a request for each is
cheaper, see `found_in_listing`.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence

from tf_image_classification.storage.local_files import Stat
from tf_image_classification.storage.paths import split_remote
from tf_image_classification.storage.stores import store_of

_PAGE = 1000  # objects; services list no more in a response
_LEAST_OF_A_PAGE = 12  # a page of a listing costs as much as twelve requests for an object


def found_in_listing(paths: Sequence[str]) -> dict[str, Stat]:
    """Those of some objects that a listing shows. One that is not among them may exist: it has to be asked for.

    Where a page shows few of the objects, or this account may not list, the rest is left out.

    Args:
        paths: of objects of one bucket, sorted by the bytes of their names.
    """
    scheme, bucket, _ = split_remote(paths[0])
    start = len(f"{scheme}{bucket}/")
    store, prefix = store_of(paths[0]), _common_folder(paths[0], paths[-1])[start:]
    keys = [os.fsencode(path) for path in paths]
    wanted = set(paths)
    found: dict[str, Stat] = {}
    next_index = 0
    while next_index < len(paths):
        try:
            page = store.page_of_objects(f"{scheme}{bucket}/", prefix, paths[next_index][start:], _PAGE)
        except OSError:  # no such bucket, or no permission to list it
            break
        shown = {item.path: item for item in page if item.path in wanted}
        found |= shown
        if len(shown) < _LEAST_OF_A_PAGE or not page:
            break
        next_index = max(next_index + 1, bisect.bisect_right(keys, os.fsencode(page[-1].path)))
    return found


def _common_folder(first: str, last: str) -> str:
    """The deepest folder, with a slash at its end, that two objects of a bucket are in."""
    end = next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rindex("/", 0, end) + 1]
