"""What the columns of a list of images are, decided once from its first lines."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tf_image_classification import storage
from tf_image_classification.data import manifest
from tf_image_classification.data.sources.list_text import ListText
from tf_image_classification.data.sources.named_splits import is_ml_use, is_split_column
from tf_image_classification.errors import DataError, FlagError

# Names of the first column, without regard to case, spaces, '_' and '-'.
_PATH_WORDS = (
    "path paths uri uris url urls file files image images img imgs photo photos picture pictures filename "
    "filenames fname filepath filepaths imagepath imagepaths imgpath imagefile imagefiles imagefilename "
    "imagefilepath imagename imagenames imgname imageid imageids imgid imageuri imageuris imageurl imageurls "
    "imagegcsuri gcsuri gcsuris gcspath gcsfilepath"
)
PATH_COLUMNS = frozenset(_PATH_WORDS.split())
_LABEL_WORDS = (
    "label labels class classes classname classid category categories target targets tag tags species breed y "
    "labelname labelid annotation groundtruth gt"
)
_LABEL_COLUMNS = frozenset(_LABEL_WORDS.split())
EXPECTED = "lines of path,label, or a header URIs,labels and such lines"

_BOX_COLUMNS = frozenset(
    {"xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "bbox", "boundingbox", "box", "boxes"}
)

_TASK_NAME = re.compile(r"[\w.-]+")
_PATH = re.compile(r"[./\\]")  # what names of columns do not hold
_IMAGE = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?|heic|avif|jp2)\Z", re.IGNORECASE)
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_TITLE_LINES = 10  # above a header
_MAX_TASKS = 100
_SAMPLE = 1000  # lines that tell what the columns hold
_ONE_HOT = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


class Row(NamedTuple):
    """A line that is not blank.

    Attributes:
        number: of the line, counted from 1.
        fields: without the spaces around them.
    """

    number: int
    fields: list[str]


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a list.

    Attributes:
        delimiter: between the fields.
        header: the fields of the first line, if it names the columns.
        split_index: of the column that names the splits; None if there is none.
        has_ml_use: whether lines may start with one of the words by which Vertex AI names splits.
        tasks: a name per label column.
    """

    delimiter: str
    header: tuple[str, ...] | None
    split_index: int | None
    has_ml_use: bool
    tasks: tuple[str, ...]


def rows(text: ListText, delimiter: str) -> Iterator[Row]:
    """The lines of a list that are not blank, split into fields; a line `sep=,` as Excel writes it is left out.

    Raises:
        DataError: a line break is inside double quotes, or the file is no UTF-8 text.
    """
    current, waiting = 0, False

    def physical_lines() -> Iterator[str]:
        nonlocal current, waiting
        for number, line in text.lines():
            if waiting:
                break
            if line.strip() and not (number == 1 and _EXCEL_SEPARATOR.fullmatch(line)):
                current, waiting = number, True
                yield line
        if waiting:  # the reader wants another line before it has returned this one
            raise DataError(
                f"A double quote in the {text.kind} is not closed on its line",
                received=f"{text.path}, line {current}",
                expected="an even number of double quotes on each line: paths and labels hold no line breaks",
                hint='Remove the quote; one that belongs to a quoted field is written twice: "".',
            )

    reader = csv.reader(physical_lines(), delimiter=delimiter, skipinitialspace=True)
    try:
        for fields in reader:
            waiting = False
            yield Row(current, [field.strip() for field in fields])
    except csv.Error as error:
        raise DataError(
            f"The {text.kind} cannot be read", received=f"{text.path}, line {current}: {error}", expected=EXPECTED
        ) from error


def read_layout(text: ListText, delimiters: Sequence[str], folder: str, split_column: str | None) -> Layout:
    """The layout of a list.

    Args:
        text: of the list.
        delimiters: those that it may have, the likeliest first.
        folder: that relative paths are relative to.
        split_column: name of the column that names the splits.

    Raises:
        DataError: the file is no list of paths and labels.
        FlagError: there is no column `split_column`, or there is one that seems to be meant.
    """
    kind, delimiter = text.kind, _delimiter(text, delimiters)
    sample = list(itertools.islice(rows(text, delimiter), _SAMPLE))
    if not sample:
        raise DataError(f"The {kind} is empty", received=text.path, expected=EXPECTED)
    first = sample[0].fields
    received = f"{text.path}, line {sample[0].number}: {delimiter.join(first)}"
    if max(len(row.fields) for row in sample) < 2:
        raise DataError(f"The {kind} has a single column", received=received, expected=EXPECTED)
    if _simplified(first[0]) in PATH_COLUMNS:
        return _with_header(text, delimiter, sample, split_column)
    _check_no_header(kind, received, sample, folder)
    has_ml_use = any(is_ml_use(row.fields[0]) for row in rows(text, delimiter))
    if split_column:
        raise FlagError(
            f"--split_column names a column, but the {kind} has no header",
            received=received,
            expected=f"a first line such as path,label,{split_column}",
            hint="Vertex AI's import files name their splits without the flag." if has_ml_use else "",
        )
    if len(first) > 2 and not has_ml_use:
        raise DataError(
            f"The {kind} has {len(first)} columns and no header",
            received=received,
            expected="a first line such as path,age,gender that names the label columns, or two columns",
            hint="A path or label that contains a comma must be in double quotes.",
        )
    return Layout(delimiter, None, None, has_ml_use, (manifest.DEFAULT_TASK,))


def _with_header(text: ListText, delimiter: str, sample: Sequence[Row], split_column: str | None) -> Layout:
    kind, header = text.kind, tuple(sample[0].fields)
    received = f"{text.path}: {delimiter.join(header)}"
    split_index = _split_index(header, received, kind, split_column)
    names = tuple(name for index, name in enumerate(header) if index not in (0, split_index))
    if not names:
        raise DataError(f"The {kind} has no label column", received=received, expected=EXPECTED)
    if boxes := [name for name in names if _simplified(name) in _BOX_COLUMNS]:
        raise DataError(
            f"The {kind} is for object detection: its columns hold bounding boxes",
            received=f"{received}, with {', '.join(boxes)}",
            expected="path,label: a label per image. Cut the boxes out as images, or take their columns out",
        )
    if len(names) == 1:
        return Layout(delimiter, header, split_index, False, (manifest.DEFAULT_TASK,))
    if len(names) > _MAX_TASKS:
        raise DataError(
            f"The {kind} has too many label columns, of which each would be a task",
            received=f"{len(names):,} in {text.path}",
            expected=f"at most {_MAX_TASKS}; for one task, a label column that holds the name of the class",
        )
    if len(set(names)) < len(names) or not all(_TASK_NAME.fullmatch(name) for name in names):
        raise DataError(
            f"The {kind}'s header does not name its label columns",
            received=received,
            expected="different names of letters, digits, '_', '-' and '.'",
        )
    labels = [[field for index, field in enumerate(row.fields) if index not in (0, split_index)] for row in sample[1:]]
    if _is_one_hot(labels):
        raise DataError(
            f"The {kind}'s label columns are one-hot: a column per class, with a single 1 in each line",
            received=received,
            expected="one label column that holds the name of the class: path,label",
            hint="With pandas: table[classes].idxmax(axis=1).",
        )
    return Layout(delimiter, header, split_index, False, names)


def _split_index(header: Sequence[str], received: str, kind: str, split_column: str | None) -> int | None:
    if split_column:
        if split_column not in header[1:]:
            raise FlagError(
                f"The {kind} has no column that --split_column names",
                received=f"--split_column {split_column}; {received}",
                expected=f"one of {', '.join(header[1:])}",
            )
        return header.index(split_column, 1)
    if found := [name for name in header[1:] if is_split_column(_simplified(name))]:
        raise FlagError(
            f"The {kind}'s column {found[0]} seems to name the split of each line, not a class",
            received=received,
            expected=f"--split_column {found[0]}, so that the lines go into the splits that it names, such as train "
            "and valid",
            hint="Without that column, --eval_fraction or --eval_metadata decides. A label column needs another name.",
        )
    return None


def _check_no_header(kind: str, received: str, sample: Sequence[Row], folder: str) -> None:
    """Refuses a first line that seems to name the columns, but does not call the first one by a known name; a header
    further down; and paths in the second column."""
    _check_first_lines(kind, received, sample)
    first, *others = sample[0].fields
    named = [_simplified(name) for name in others]
    if is_ml_use(first) or _PATH.search(first):
        return
    has_paths = len(sample) > 1 and all(_PATH.search(row.fields[0]) for row in sample[1:])
    is_known = any(name in PATH_COLUMNS | _LABEL_COLUMNS or is_split_column(name) for name in named)
    if not (has_paths or is_known) or (first and storage.exists(storage.join(folder, first))):
        return
    expected = f"a first column called path, image, filename, URIs or the like, or no header; {EXPECTED}"
    if PATH_COLUMNS.isdisjoint(named):
        raise DataError(
            f"The first line of the {kind} seems to be a header, but the name of its first column is not known",
            received=received,
            expected=expected,
        )
    raise DataError(
        f"The first column of the {kind} is not that of the paths",
        received=received,
        expected=expected,
        hint="Put the column of paths first" + ("." if first else " (in pandas: to_csv(index=False))."),
    )


def _check_first_lines(kind: str, received: str, sample: Sequence[Row]) -> None:
    for row in sample[1:_TITLE_LINES]:
        path, *others = map(_simplified, row.fields)
        if path in PATH_COLUMNS and _LABEL_COLUMNS.intersection(others):
            raise DataError(
                f"The header of the {kind} is not on its first line",
                received=f"{received}; the header on line {row.number}",
                expected="the header, then a line per image. Take out what is above it",
            )
    if all(_has_path_behind_label(row.fields) for row in sample):
        raise DataError(
            f"The paths are in the second column of the {kind}",
            received=received,
            expected=f"them in the first: {EXPECTED}",
        )


def _has_path_behind_label(fields: Sequence[str]) -> bool:
    """Whether these are the label and the path of an image, and not a split of Vertex AI and a path."""
    if len(fields) != 2 or not fields[0] or is_ml_use(fields[0]):
        return False
    return _PATH.search(fields[0]) is None and _IMAGE.search(fields[1]) is not None


def _delimiter(text: ListText, delimiters: Sequence[str]) -> str:
    """The delimiter that Excel's first line names, or the first by which all lines of a sample have equally many
    columns, or by which the first line has several."""
    start = list(itertools.islice((line for _, line in text.lines()), _SAMPLE))
    if start and (named := _EXCEL_SEPARATOR.fullmatch(start[0])):
        return named[1]
    splitting = []
    for delimiter in delimiters:
        counts = {len(fields) for fields in _fields(start, delimiter)}
        if len(counts) == 1 and counts.pop() > 1:
            return delimiter
        first = next(_fields(start, delimiter), [])
        if len(first) > 1 and delimiter != " ":  # paths and labels hold spaces
            splitting.append(delimiter)
    return (splitting or delimiters)[0]


def _fields(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The fields of each line that is not blank, as if no quote went on beyond its line; none where `rows` fails."""
    for line in lines:
        if line.strip():
            try:
                yield next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
            except csv.Error:
                yield []


def _is_one_hot(labels: Sequence[Sequence[str]]) -> bool:
    """Whether each line has a 1 in one column and 0 in the others."""
    values = [[_ONE_HOT.get(field.lower(), -1) for field in line] for line in labels]
    return len(values) > 1 and all(sum(line) == 1 and -1 not in line for line in values)


def _simplified(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def same_header(fields: Sequence[str], header: Sequence[str] | None) -> bool:
    """Whether a line repeats the header."""
    return header is not None and [field.casefold() for field in fields] == [name.casefold() for name in header]
