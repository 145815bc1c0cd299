"""Folders whose sub-folders are no classes: splits, images beside their annotations, or a folder around the classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tf_image_classification import storage
from tf_image_classification.data.sources import listing
from tf_image_classification.data.sources.base import Candidate
from tf_image_classification.errors import FlagError, abridged

_TRAINING = ("train", "training", "trn")
_EVALUATION = ("valid", "validation", "val", "dev", "eval", "evaluation", "test", "testing", "tst", "holdout")
_OTHER_SPLITS = ("pred", "predict", "unlabeled", "fold", "split", "part")
_OF_IMAGES = frozenset({"images", "image", "img", "imgs", "jpegimages", "photos", "pictures"})
_MAX_FOLDERS = 10  # named in a message
_BESIDE_IMAGES = frozenset({"annotations", "annotation", "labels", "unlabeled", "unlabelled"})


def is_split(name: str) -> bool:
    """Whether a folder has the name of a split: train, validation, test and the like, in any case."""
    return name.strip().lower() in (*_TRAINING, *_EVALUATION)


def check_classes(folder: str) -> None:
    """Checks that the sub-folders of a folder are not splits, nor images beside their annotations.

    Raises:
        FlagError: they are.
    """
    names = _folders_in(folder)
    splits = [name for name in names if is_split(name)]
    others = [name for name in names if name not in splits and name.lower() not in _BESIDE_IMAGES]
    if splits:
        with_classes = [name for name in splits if Candidate(storage.join(folder, name)).has_nested_files]
        if len(with_classes) > 1 or (not others and (with_classes or len(splits) > 1)):
            _refuse_splits(folder, splits, with_classes)
    if len(with_same := _with_same_classes(folder, others + splits)) > 1:
        _refuse_splits(folder, others + splits, with_same)
    of_images = [name for name in others if name.lower() in _OF_IMAGES]
    if of_images and of_images == others and len(names) > len(others):
        raise FlagError(
            "The sub-folders are no classes: one holds images, another what is known about them",
            received=f"{folder} with {abridged(names, _MAX_FOLDERS)}",
            expected="a folder with one sub-folder per class",
            hint=f"If {of_images[0]} holds one sub-folder per class, give {storage.join(folder, of_images[0])}. If "
            "not, write a CSV of path,label lines from the annotations.",
        )


def _with_same_classes(folder: str, names: Sequence[str]) -> list[str]:
    """The folders with names such as training_set, seg_test and fold1, if all have such names, and some the same
    sub-folders; else none."""
    if len(names) < 2 or not all(map(_words_of_splits, names)):
        return []
    classes = {name: _classes_in(storage.join(folder, name)) for name in names}
    with_classes = [name for name in names if classes[name]]
    common = set.intersection(*(classes[name] for name in with_classes)) if with_classes else set()
    return with_classes if common else []


def _classes_in(folder: str) -> set[str]:
    return set(_folders_in(inner_folder(folder) or folder))


def _words_of_splits(name: str) -> list[str]:
    """The words of a folder's name that name a split."""
    words = re.split(r"[\W\d_]+", name.lower())
    return [word for word in words if word in (*_TRAINING, *_EVALUATION, *_OTHER_SPLITS)]


def inner_folder(folder: str) -> str | None:
    """The only sub-folder of a folder, if it holds sub-folders itself, as an unpacked archive often does; else None."""
    found = None
    while len(names := [name for name in _folders_in(folder) if name.lower() not in _BESIDE_IMAGES]) == 1:
        inner = storage.join(folder, names[0])
        if not _folders_in(inner):
            break
        folder = found = inner
    return found


def named_like_splits(names: Iterable[str]) -> list[str]:
    """The names that are those of splits, or all if they all contain such a word, as train_images does."""
    given = list(names)
    return given if all(map(_words_of_splits, given)) else list(filter(is_split, given))


def without_files(folder: str, with_files: set[str]) -> list[str]:
    """The sub-folders that are not among those with files: probably classes that are not there yet."""
    return [name for name in _folders_in(folder) if name not in with_files]


def _folders_in(folder: str) -> list[str]:
    try:
        names = storage.folders_in(folder)
    except PermissionError:  # said when the images are listed
        return []
    return [name for name in names if not listing.is_hidden(name) and not listing.is_system_folder(name)]


def _refuse_splits(folder: str, splits: Sequence[str], with_classes: Sequence[str]) -> None:
    received = f"{folder} with {abridged(splits, _MAX_FOLDERS)}"
    if not with_classes:
        raise FlagError(
            "The sub-folders are splits, not classes, and hold no class folders",
            received=received,
            expected="a folder with one sub-folder per class",
            hint="Sort the images of each split into one sub-folder per class, or write a CSV of path,label lines.",
        )
    flags = []
    for flag, words in (("--train_metadata", _TRAINING), ("--eval_metadata", _EVALUATION)):
        by_word = {word: name for name in with_classes for word in _words_of_splits(name)}
        if name := next((by_word[word] for word in words if word in by_word), None):
            path = storage.join(folder, name)
            flags.append(f"{flag} {inner_folder(path) or path}")
    raise FlagError(
        "The sub-folders are splits, not classes",
        received=received,
        expected="a folder with one sub-folder per class",
        hint=f"Give {' '.join(flags)}." if flags else "Give some as --train_metadata, and another as --eval_metadata.",
    )
