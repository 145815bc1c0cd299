"""Several paths in one text, as --train_metadata and --image_root take them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tf_image_classification import storage

_MAX_NAME = 1024  # bytes of an object's name; of a file's, 255


def split_metadata(metadata: str) -> list[str]:
    """The paths and globs of a metadata text, which commas separate. One that exists may have commas and spaces itself.

    Of `photos, 2024/cat.csv,dog.csv` the first two words are one path if there is a folder `photos, 2024`.
    """
    if "," in metadata and not storage.is_remote(metadata) and storage.exists(metadata):
        return [metadata]
    words, parts = metadata.split(","), []
    while words:
        if (part := _longest_path(words)) is None:
            part = words[0] if words[0] != words[0].strip() and storage.exists(words[0]) else words[0].strip()
            parts += [part] if part else []
            words = words[1:]
        else:
            parts.append(part)
            words = words[part.count(",") + 1 :]
    return parts


def _longest_path(words: Sequence[str]) -> str | None:
    """The longest path that exists and consists of the first words, two or more, with commas between them; or None.

    It takes few look-ups: a flag may list thousands of paths, and in a bucket each look-up is a request.
    """
    found, text = None, words[0]
    for word in itertools.islice(words, 1, None):
        if is_absolute(word.strip()):
            break
        text = f"{text},{word}"
        folder, _, name = text.rpartition("/")
        is_beyond = "," in folder and not any(map(storage.is_dir, dict.fromkeys((folder, folder.lstrip()))))
        if is_beyond or len(name) > _MAX_NAME:  # and so are all longer ones
            break
        found = next(filter(storage.exists, dict.fromkeys((text, text.strip()))), found)
    return found


def is_absolute(path: str) -> bool:
    """Whether a path names the same place in every working directory."""
    return path.startswith(("/", *storage.REMOTE_SCHEMES))
