"""The lines of a text file that lists images."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tf_image_classification import storage
from tf_image_classification.data.sources import other_kinds
from tf_image_classification.errors import DataError, FlagError

_MAX_LINE = 2**20  # characters
_BOM = "\ufeff"
_UTF_16_HINT = "Save it as UTF-8 (in Excel: CSV UTF-8), or convert it: iconv -f {0} -t UTF-8."
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32LE",
    b"\0\0\xfe\xff": "UTF-32BE",
    b"\xff\xfe": "UTF-16LE",
    b"\xfe\xff": "UTF-16BE",
}


@dataclass(frozen=True, slots=True)
class ListText:
    """The text of a list.

    Attributes:
        path: as the metadata names it.
        kind: what messages call it.
        local: where it can be opened.
    """

    path: str
    kind: str
    local: str

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines with their numbers, counted from 1. They end with \\n, \\r or \\r\\n, which are kept.

        Raises:
            DataError: a line is no UTF-8 text; names it and the encoding that it seems to be in. Or it is too long.
        """
        with (
            storage.open_file(self.local) as raw,
            io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            for number in itertools.count(1):
                if not (line := file.readline(_MAX_LINE + 1)):
                    break
                text = line.removeprefix(_BOM)  # in the middle, where files were concatenated
                if "\0" in text:
                    raise DataError(
                        f"The {self.kind} holds NUL bytes",
                        received=f"{self.path}, line {number}",
                        expected="UTF-8 text",
                    )
                if len(line) > _MAX_LINE:
                    raise DataError(
                        f"The {self.kind} has a line that is longer than any of a list of images",
                        received=f"{self.path}, line {number}",
                        expected=f"lines of at most {_MAX_LINE:,} characters",
                    )
                if not text.isascii():
                    self._check_utf8(text, number)
                yield number, text

    def _check_utf8(self, text: str, number: int) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raw = text.encode(errors="surrogateescape")
            raise DataError(
                f"The {self.kind} is not UTF-8",
                received=f"{self.path}, line {number}: {raw[:200].decode(errors='backslashreplace')}",
                expected="UTF-8 text",
                hint=_likely_encoding(raw),
            ) from None


@contextlib.contextmanager
def fetched(path: str, kind: str) -> Iterator[ListText]:
    """The text of a list, while the context lasts.

    Args:
        path: of the file.
        kind: what messages call it.

    Raises:
        DataError: it is UTF-16 or UTF-32.
        FlagError: it cannot be read, or is another kind of file.
    """
    with contextlib.ExitStack() as stack:
        local = storage.mounted(path)
        try:
            if storage.is_remote(local):
                local = storage.fetch(path, stack.enter_context(storage.temporary_dir()))
            with storage.open_file(local) as file:
                head = file.read(other_kinds.HEAD_BYTES)
        except OSError as error:
            raise FlagError(
                f"The {kind} cannot be read", received=f"{path}: {error.strerror}", expected="a readable file"
            ) from error
        _check_start(head, path, kind)
        yield ListText(path, kind, local)


def _check_start(head: bytes, path: str, kind: str) -> None:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if encoding is None and b"\0" in head:
        encoding = _utf_16_without_mark(head)
    if encoding:
        raise DataError(
            f"The {kind} is in {encoding}", received=path, expected="UTF-8 text", hint=_UTF_16_HINT.format(encoding)
        )
    other_kinds.refuse_content(path, head)


def _utf_16_without_mark(head: bytes) -> str | None:
    """UTF-16 where nearly every other byte is 0, as in text of ASCII characters."""
    even, odd = head[0::2], head[1::2]
    if odd.count(0) > 0.7 * len(odd) and even.count(0) == 0:
        return "UTF-16LE"
    if even.count(0) > 0.7 * len(even) and odd.count(0) == 0:
        return "UTF-16BE"
    return None


def _likely_encoding(raw: bytes) -> str:
    """What to do about a line that is not UTF-8."""
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode("cp1252")
        if all(char.isascii() or char.isalpha() for char in text):
            return (
                f"As Windows-1252 (cp1252), or Latin-1, the line is: {text.strip()[:200]}. If that is right, convert "
                "the file: iconv -f WINDOWS-1252 -t UTF-8."
            )
    return "Convert it from its encoding, such as Windows-1252, Shift-JIS or GBK: iconv -f SHIFT-JIS -t UTF-8."
