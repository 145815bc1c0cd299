"""What the person who called the command sees: whole lines, and on a terminal a progress bar below them."""

from __future__ import annotations

from typing import TextIO

from tf_image_classification.errors import printable_lines

_ERASE_LINE = "\r\x1b[K"


class Screen:
    """Lines and one progress bar on a stream. Not for several threads.

    What the terminal would act on in them is escaped: they name classes and files, and hold output of libraries.

    Attributes:
        stream: where everything goes; what else is written to it appears between the lines.
        is_terminal: whether it can show a progress bar.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self._bar = ""

    def line(self, text: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        bar = self._bar
        self.hide_bar()
        self.stream.write(f"{printable_lines(text)}\n")
        if bar:
            self.show_bar(bar)
        self.stream.flush()

    def show_bar(self, text: str) -> None:
        """Draws the progress bar over the one before; does nothing where there is no terminal."""
        if self.is_terminal:
            self.stream.write(f"{_ERASE_LINE}{printable_lines(text)}")
            self.stream.flush()
            self._bar = text

    def hide_bar(self) -> None:
        if self._bar:
            self.stream.write(_ERASE_LINE)
            self._bar = ""
