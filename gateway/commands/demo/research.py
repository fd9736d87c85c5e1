"""The demo agent's work: find out where the documents speak of a topic, and publish a report if it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gateway.commands.demo.library import Found, Hit, Library, count_words, grep, open_library, pick_topic, read_file
from gateway.commands.demo.recorder import Recorder
from gateway.commands.demo.reports import write_report

CLOSE_READS = 3
LINES_AROUND = 3
TOPIC_CHARS = 80
REQUEST_ID = "publish"


class CannotResearch(Exception):
    """There is nothing to search, or nothing to search for; the message says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Desk(msgspec.Struct, frozen=True):
    """What the work needs: `ask` opens a question of the run and returns its `run.input_received`."""

    run_id: str
    recorder: Recorder
    ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    reports: Path
    approval_s: float


async def research(desk: Desk, wish: Any) -> dict[str, Any]:
    """Do the work and return the run's output.

    Args:
        wish: The run's input; `{"topic": …}` says what to look for.

    Raises:
        CannotResearch: the input or the library does not allow it.
        OSError: a file could not be read or written.
    """
    recorder = desk.recorder
    async with recorder.step("survey the library"):
        library = await _survey(recorder)
        topic = await asyncio.to_thread(_choose_topic, library, wish)
    async with recorder.step(f"search for “{topic}”"):
        found = await _search(recorder, library, topic)
    state = {"topic": topic, "lines": found.lines, "files": found.files}
    await recorder.write("checkpoint.created", {"source": "search", "state": state})
    if found.files:
        async with recorder.step("read the passages"):
            for path in list(found.files)[:CLOSE_READS]:
                await _read(recorder, library, found, path)
    await recorder.finish_saying()
    output = {"topic": topic, "lines": found.lines, "files": len(found.files)}
    if not found.files:
        return {**output, "published": False, "reason": "nothing was found"}
    return {**output, **await _publish(desk, topic, found)}


def _choose_topic(library: Library, wish: Any) -> str:
    topic = wish.get("topic") if isinstance(wish, dict) else wish
    if topic is None:
        topic = pick_topic(library)
    if not isinstance(topic, str) or not topic.strip() or len(topic) > TOPIC_CHARS:
        raise CannotResearch("invalid_topic", f"The topic must be text of 1 to {TOPIC_CHARS} characters.")
    return topic.strip()


async def _survey(recorder: Recorder) -> Library:
    library = await recorder.use("list_files", {}, open_library, lambda lib: {"kind": lib.kind, "files": lib.paths})
    if not library.paths:
        raise CannotResearch("nothing_to_read", "There is no file to search.")
    await recorder.use("count_words", {"files": len(library.paths)}, lambda: count_words(library), lambda count: count)
    return library


async def _search(recorder: Recorder, library: Library, topic: str) -> Found:
    found = await recorder.use("grep", {"pattern": topic}, lambda: grep(library, topic), _show)
    whole = len(library.paths)
    if not found.files:
        await recorder.say(f"None of the {whole} {library.kind} speaks of “{topic}”.")
        return found
    lines = _count(found.lines, "line", "speaks", "speak")
    await recorder.say(f"{lines} of “{topic}”, in {len(found.files)} of {whole} {library.kind}.")
    return found


def _show(found: Found) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(found)
    return shown


async def _read(recorder: Recorder, library: Library, found: Found, path: str) -> None:
    hit = found.first[path]
    first, last = max(1, hit.line - LINES_AROUND), hit.line + LINES_AROUND
    await recorder.use(
        "read_file",
        {"path": path, "lines": [first, last]},
        lambda: read_file(library, path, first, last),
        lambda text: {"text": text},
    )
    await recorder.say(_describe(hit, found.files[path]))


def _describe(hit: Hit, lines: int) -> str:
    return f"\n\n{hit.path} has {lines} of them, one at line {hit.line}:\n“{hit.text}”"


async def _publish(desk: Desk, topic: str, found: Found) -> dict[str, Any]:
    """Ask, and write the report if the answer is yes."""
    recorder = desk.recorder
    report = _compose(topic, recorder.said, found)
    path = desk.reports / f"{desk.run_id}.md"
    question = {
        "request_id": REQUEST_ID,
        "prompt": f"Publish this report of {len(report.split())} words on “{topic}”?",
        "schema": {"type": "boolean"},
        "timeout_s": desk.approval_s,
        "on_timeout": "default",
        "default": False,
    }
    answer = await desk.ask(question)
    if answer["content"] is not True:
        reason = "nobody answered in time" if answer.get("reason") == "deadline" else "declined"
        await recorder.write("log", {"level": "info", "message": f"Not published: {reason}."})
        return {"published": False, "reason": reason}
    async with recorder.step("publish the report"):
        inputs = {"path": str(path), "words": len(report.split())}
        await recorder.use("write_file", inputs, lambda: write_report(path, report), lambda size: {"size_bytes": size})
    await recorder.write("output.set", {"key": "report", "value": report})
    return {"published": True, "report": str(path)}


def _compose(topic: str, text: str, found: Found) -> str:
    rows = "\n".join(f"| {path} | {lines} |" for path, lines in found.files.items())
    return f"# Where “{topic}” is spoken of\n\n{text}\n\n| file | lines |\n|---|---|\n{rows}\n"


def _count(number: int, noun: str, one: str, many: str) -> str:
    return f"{number} {noun} {one}" if number == 1 else f"{number} {noun}s {many}"
