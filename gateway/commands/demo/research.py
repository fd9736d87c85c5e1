"""The demo agent's work, step by step; all of it is true work on true files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.client.worker import Fatal, Run
from gateway.commands.demo.library import Found, Hit, Library, count_words, grep, open_library, pick_topic, read_file
from gateway.commands.demo.reports import save_report

T = TypeVar("T")

CLOSE_READS = 3
LINES_AROUND = 3
TOPIC_CHARS = 80
WORDS = 3
FAIL_ONCE = "fail_once"
MESSAGE = {"message_id": "findings", "role": "assistant"}


class Notes(msgspec.Struct, frozen=True):
    """What the search found, and what was said of it: all that a later attempt needs to go on from there."""

    topic: str
    found: Found
    said: str


class OnPurpose(Exception):
    """The failure that a run's input asked for."""


class Research:
    """What the agent does within its run.

    Args:
        pace_s: a pause before each action, so that a person can follow; no duration of a tool includes it.
    """

    def __init__(self, run: Run, *, pace_s: float) -> None:
        self._run = run
        self._pace_s = pace_s
        self._said = ""

    async def recall_notes(self) -> Notes | None:
        """Return the notes of an earlier attempt, None where there was none that came so far."""
        state = self._run.checkpoint_state
        if state is None:
            return None
        notes = msgspec.convert(state, Notes)
        self._said = notes.said
        await self._run.log(f"Going on from the checkpoint: “{notes.topic}” was searched for before.")
        return notes

    async def search(self) -> Notes:
        """Find the lines that speak of the topic, and say how many there are.

        Raises:
            Fatal: the input or the library does not allow it.
        """
        async with self._run.step("survey the library"):
            library = await self._use(
                "list_files", {}, open_library, lambda lib: {"kind": lib.kind, "files": list(lib.paths)}
            )
            if not library.paths:
                raise Fatal("There is no file to search.", code="nothing_to_read")
            await self._use("count_words", {"files": len(library.paths)}, lambda: count_words(library))
            topic = await asyncio.to_thread(_choose_topic, library, self._run.input)
        async with self._run.step(f"search for “{topic}”"):
            found = await self._use("grep", {"pattern": topic}, lambda: grep(library, topic), msgspec.to_builtins)
            await self._say(_sum_up(topic, found, library))
        return Notes(topic, found, self._said)

    async def read_passages(self, notes: Notes) -> None:
        """Read around the first passage of each of a few files, and quote it."""
        library = await asyncio.to_thread(open_library)
        async with self._run.step("read the passages"):
            for path in list(notes.found.files)[:CLOSE_READS]:
                await self._read_passage(library, notes.found, path)
                self._fail_on_purpose()

    async def _read_passage(self, library: Library, found: Found, path: str) -> None:
        hit = found.first[path]
        first, last = max(1, hit.line - LINES_AROUND), hit.line + LINES_AROUND
        await self._use(
            "read_file",
            {"path": path, "lines": [first, last]},
            lambda: {"text": read_file(library, path, first, last)},
        )
        await self._say(_describe(hit, found.files[path]))

    def _fail_on_purpose(self) -> None:
        wish = self._run.input
        if isinstance(wish, dict) and wish.get(FAIL_ONCE) is True and self._run.attempt == 1:
            raise OnPurpose(f"The input says {FAIL_ONCE}: the next attempt goes on from the checkpoint.")

    async def write_report(self, notes: Notes) -> str:
        """Return the report, and record that all is said."""
        await self._run.message(self._said, **MESSAGE)
        rows = "\n".join(f"| {path} | {lines} |" for path, lines in notes.found.files.items())
        return f"# Where “{notes.topic}” is spoken of\n\n{self._said}\n\n| file | lines |\n|---|---|\n{rows}\n"

    async def publish(self, report: str, folder: Path) -> str:
        """Write the report into a folder, named after the run, and return its path.

        Raises:
            Fatal: it cannot be written; leave was given, and is not asked for again.
        """
        path = folder / f"{self._run.id}.md"
        async with self._run.step("publish the report"):
            inputs = {"path": str(path), "words": len(report.split())}
            try:
                await self._use("write_file", inputs, lambda: {"size_bytes": save_report(path, report)})
            except OSError as error:
                raise Fatal(f"{type(error).__name__}: {error}", code="not_written") from error
        await self._run.output("report", report)
        return str(path)

    async def _use(
        self, name: str, inputs: dict[str, Any], work: Callable[[], T], show: Callable[[T], Any] = lambda given: given
    ) -> T:
        """Record a tool at work and return what it gives; `show` makes the recorded output of that."""
        await asyncio.sleep(self._pace_s)
        async with self._run.tool(name, inputs) as call:
            given = await asyncio.to_thread(work)
            call.output = show(given)
        return given

    async def _say(self, text: str) -> None:
        """Stream a piece of the run's text, a few words at a time."""
        words = text.split(" ")
        for start in range(0, len(words), WORDS):
            piece = " ".join(words[start : start + WORDS])
            piece += " " if start + WORDS < len(words) else ""
            await asyncio.sleep(self._pace_s / 4)
            await self._run.say(piece, **MESSAGE)
            self._said += piece


def _choose_topic(library: Library, wish: Any) -> str:
    topic = wish.get("topic") if isinstance(wish, dict) else wish
    if topic is None:
        topic = pick_topic(library)
    if not isinstance(topic, str) or not topic.strip() or len(topic) > TOPIC_CHARS:
        raise Fatal(f"The topic must be text of 1 to {TOPIC_CHARS} characters.", code="invalid_topic")
    return topic.strip()


def _sum_up(topic: str, found: Found, library: Library) -> str:
    whole = len(library.paths)
    if not found.files:
        return f"None of the {whole} {library.kind} speaks of “{topic}”."
    lines = "1 line speaks" if found.lines == 1 else f"{found.lines} lines speak"
    return f"{lines} of “{topic}”, in {len(found.files)} of {whole} {library.kind}."


def _describe(hit: Hit, lines: int) -> str:
    return f"\n\n{hit.path} has {lines} of them, one at line {hit.line}:\n“{hit.text}”"
