"""A program's output as lines. No I/O."""

from __future__ import annotations

import codecs

import msgspec

LINE_CHARS = 32 * 1024
"""A longer line is cut into pieces: each stays under the limit of an event however it is escaped."""


class Line(msgspec.Struct, frozen=True):
    """One line without its end; `continued` says that the next one is a further piece of it."""

    text: str
    continued: bool = False


class LineSplitter:
    """Turns chunks of bytes, cut anywhere, into lines; undecodable bytes become U+FFFD."""

    def __init__(self, limit_chars: int = LINE_CHARS) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._limit_chars = limit_chars
        self._rest = ""
        self._last = ""

    @property
    def last(self) -> str:
        """The line that the program wrote last, ended or not: where a prompt stands."""
        return self._rest or self._last

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that `chunk` ends, and full pieces of one that it does not."""
        *ended, self._rest = (self._rest + self._decoder.decode(chunk)).split("\n")
        lines = [piece for line in ended for piece in self._pieces(line.removesuffix("\r"))]
        while len(self._rest) > self._limit_chars:
            lines.append(Line(self._rest[: self._limit_chars], continued=True))
            self._rest = self._rest[self._limit_chars :]
        if lines:
            self._last = lines[-1].text
        return lines

    def take_rest(self) -> list[Line]:
        """Return the line that has no end yet, if there is one, as if it had ended here."""
        lines = self._pieces(self._rest) if self._rest else []
        self._last, self._rest = self.last, ""
        return lines

    def finish(self) -> list[Line]:
        """Return what is left when the output has ended, half a character included."""
        self._rest += self._decoder.decode(b"", final=True)
        return self.take_rest()

    def _pieces(self, line: str) -> list[Line]:
        size = self._limit_chars
        cuts = range(0, max(len(line), 1), size)
        return [Line(line[cut : cut + size], continued=cut + size < len(line)) for cut in cuts]
