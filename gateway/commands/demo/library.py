"""What the demo agent reads: this project's documents, or its sources where it is installed without them."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

PACKAGE = Path(__file__).parents[2]
DOCUMENTS = 300
DOCUMENT_BYTES = 512 * 1024
LINE_CHARS = 240
# A heading, a word set as code, or the name of a class or function: what a document is about, not how it says it.
_TERMS = re.compile(r"^#+ (.+)$|`([a-z][a-z_ ]+)`|^\s*(?:class|(?:async )?def) (\w+)", re.MULTILINE)
_WORD = re.compile(r"[a-z]{5,}")
_PROSE = re.compile(r"[A-Za-z*_\"“‘-]")
_COMMON = frozenset(
    _WORD.findall(
        "about above after again against among before being below between beyond could every first other should since "
        "still their there these thing third those through under until where which while whose within without would "
        "cannot false never often number return returns value"
    )
)


class Library(msgspec.Struct, frozen=True):
    """Text files below `root`; `kind` is what they are: documents or sources."""

    root: Path
    kind: str
    paths: tuple[str, ...]

    def read(self, path: str) -> str:
        """Return one file's text.

        Raises:
            OSError: it cannot be read, or is gone.
        """
        with (self.root / path).open("rb") as file:
            return file.read(DOCUMENT_BYTES).decode("utf-8", "replace")


class Hit(msgspec.Struct, frozen=True):
    """A line that a pattern was found in, counted from 1."""

    path: str
    line: int
    text: str


class Found(msgspec.Struct, frozen=True):
    """Where a pattern stands: how many lines in each file, most first, and each one's first sentence with it."""

    lines: int
    files: dict[str, int]
    first: dict[str, Hit]


def open_library(package: Path = PACKAGE) -> Library:
    """Return README.md and docs/ of the checkout that `package` lies in, else the sources of `package`."""
    root = package.parent
    if (root / "pyproject.toml").is_file():
        documents = [path for path in (root / "README.md", *sorted(root.glob("docs/**/*.md"))) if path.is_file()]
        if documents:
            return _library(root, "documents", documents)
    return _library(package.parent, "sources", sorted(package.rglob("*.py")))


def _library(root: Path, kind: str, files: list[Path]) -> Library:
    return Library(root, kind, tuple(file.relative_to(root).as_posix() for file in files[:DOCUMENTS]))


def find_topics(library: Library) -> list[str]:
    """Return words that name something in one file and stand in others, but not in most."""
    named: set[str] = set()
    spread: Counter[str] = Counter()
    for text in _texts(library):
        named.update(word for terms in _TERMS.findall(text) for word in _WORD.findall(" ".join(terms).lower()))
        spread.update(set(_WORD.findall(text.lower())))
    most = max(2, len(library.paths) // 2)
    return sorted(word for word in named - _COMMON if 2 <= spread[word] <= most)


def pick_topic(library: Library) -> str | None:
    """Return one of the library's topics, another one each time; None when it has none."""
    topics = find_topics(library)
    return random.choice(topics) if topics else None


def _texts(library: Library) -> Iterator[str]:
    for path in library.paths:
        try:
            yield library.read(path)
        except OSError:
            continue


def count_words(library: Library) -> dict[str, int]:
    """Return how many words and lines the files have together."""
    texts = [library.read(path) for path in library.paths]
    return {"words": sum(len(text.split()) for text in texts), "lines": sum(text.count("\n") for text in texts)}


def grep(library: Library, topic: str) -> Found:
    """Return the lines in which a word begins with `topic`, whatever its case."""
    pattern = re.compile(rf"(?<!\w){re.escape(topic)}", re.IGNORECASE)
    hits = [
        Hit(path, number, line.strip()[:LINE_CHARS])
        for path in library.paths
        for number, line in enumerate(library.read(path).splitlines(), 1)
        if pattern.search(line)
    ]
    files = dict(Counter(hit.path for hit in hits).most_common())
    # A table's row or a heading is quoted only where there is no sentence.
    first = {hit.path: hit for hit in sorted(hits, key=lambda hit: (_PROSE.match(hit.text) is not None, -hit.line))}
    return Found(len(hits), files, first)


def read_file(library: Library, path: str, first: int, last: int) -> str:
    """Return the lines `first` to `last` of a file, counted from 1."""
    return "\n".join(library.read(path).splitlines()[first - 1 : last])
