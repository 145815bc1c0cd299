"""The words by which a list names the split of an image."""

from __future__ import annotations

from typing import Final

from tf_image_classification.errors import DataError

TRAINING: Final = "training"
VALIDATION: Final = "validation"
TEST: Final = "test"
UNASSIGNED: Final = "unassigned"

ML_USE: Final = ("training", "validation", "test", "unassigned")  # of Vertex AI's import files, in any case

_SPLITS = {
    "train": TRAINING,
    "training": TRAINING,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "eval": VALIDATION,
    "evaluation": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "unassigned": UNASSIGNED,
    "": UNASSIGNED,
}
_COLUMN_WORDS = (
    "split splits dataset datasplit set subset subsets fold folds kfold partition mluse usage phase trainvaltest "
    "traintest traintestsplit isvalid istrain istest"
)
_COLUMNS = frozenset(_COLUMN_WORDS.split())


def read_split(word: str, where: str) -> str:
    """The split that a word names, in any case; UNASSIGNED for none.

    Args:
        where: file and line, for the message.

    Raises:
        DataError: the word names none.
    """
    if split := _SPLITS.get(word.strip().casefold()):
        return split
    raise DataError(
        "A line is in no split that is known",
        received=f"{where}: {word}",
        expected="train or training; validation, valid, val, dev or eval; test; or unassigned",
    )


def is_ml_use(word: str) -> bool:
    """Whether a word is one of those in the first column of Vertex AI's and AutoML's import files."""
    return word.casefold() in ML_USE or word.casefold() == "train"


def is_split_column(simplified: str) -> bool:
    """Whether a column of this name, in lower case and without spaces, '_' and '-', tells splits apart, not classes."""
    return simplified in _COLUMNS
