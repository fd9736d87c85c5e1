"""A writer or a reader as a process of its own, which may be killed or frozen at any moment.

`python -m tests.faults.members reader|writer URL RUN_ID FILE`, with the key in GATEWAY_KEY: it notes each thing it
does or is given as a line of FILE, and goes on from there when it is started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil

from tests.faults.address import Address
from tests.faults.history import Append, Reading
from tests.faults.writers import FaultWriter, Way
from tests.support.readers import SseReader
from tests.support.running import wait_until
from tests.support.transcripts import Seen, Told, Transcript

END_S = 60.0
SILENCE_S = 2.0
ENDED = "ended"  # what a reader notes when it knows that its run has ended


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """A writer is about to send this batch for the first time."""

    number: int
    marks: tuple[str, ...]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A writer has let go of an append."""

    append: Append


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """A reader was given a frame: an event, or else what was told."""

    at_s: float
    event: tuple[int, str, str] | None = None
    told: tuple[str, dict[str, Any]] | None = None

    @property
    def item(self) -> Seen | Told:
        """The frame as a transcript has it."""
        return Seen(*self.event) if self.event is not None else Told(*(self.told or ("", {})))


Line = Intent | Done | Heard


def read_lines(path: Path) -> Iterator[Line]:
    """Return the lines of a file; the last may have been cut by a kill."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield msgspec.json.decode(line, type=Line)


class Member:
    """A writer's or reader's process, through any number of lives."""

    def __init__(self, role: str, url: str, key: str, run_id: str, path: Path) -> None:
        self.writes = role == "writer"
        self.path = path
        self._arguments = [role, url, run_id, str(path)]
        self._environ = {**os.environ, "GATEWAY_KEY": key}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        """The process of its present life."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def lines(self) -> int:
        """How much it has noted in all its lives."""
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def start(self) -> None:
        """Begin, or go on where the last life ended."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.members", *self._arguments], env=self._environ
        )

    async def advances(self, lines: int) -> None:
        """Wait until it has noted so much more."""
        wanted = self.lines + lines
        await wait_until(lambda: self.lines >= wanted, timeout_s=END_S)

    async def kill(self) -> None:
        """End it without warning."""
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def stop(self) -> None:
        """Ask it to finish what it does, and wait until it has."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        await self.ends(END_S)

    async def ends(self, timeout_s: float) -> None:
        """Wait for its end."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, timeout_s)

    def clean_up(self) -> None:
        """Kill it if it is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def appends(self) -> list[Append]:
        """Return what its lives wrote."""
        return [line.append for line in read_lines(self.path) if isinstance(line, Done)]

    def reading(self) -> Reading:
        """Return what its lives were given, all together."""
        lines = [line for line in read_lines(self.path) if isinstance(line, Heard)]
        items = [line.item for line in lines]
        ended = any(isinstance(item, Told) and item.name == ENDED for item in items)
        return Reading(reader=self.path.name, heard=items, heard_at_s=[line.at_s for line in lines], ended=ended)


async def write(address: Address, run_id: str, path: Path, out: BinaryIO) -> None:
    """Write until SIGTERM, first what the last life may have left undone."""

    def note(line: Line) -> None:
        out.write(msgspec.json.encode(line) + b"\n")

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    writer = FaultWriter(
        address,
        run_id,
        path.stem,
        Way.NUMBERED,
        timeout_s=SILENCE_S,
        rest_s=0.01,
        note=lambda append: note(Done(append)),
        intend=lambda number, marks: note(Intent(number, marks)),
    )
    done = 0
    for line in read_lines(path):
        if isinstance(line, Intent):
            writer.batches[line.number] = line.marks
            writer.marks += len(line.marks)
        elif isinstance(line, Done):
            done = max(done, line.append.number)
    if done < len(writer.batches):
        await writer.settle(len(writer.batches))
    await writer.run(stopping)


async def read(address: Address, run_id: str, path: Path, out: BinaryIO) -> None:
    """Read to the end of the run, from where the last life was killed."""

    def note(item: Seen | Told, at_s: float) -> None:
        event, told = (item, None) if isinstance(item, Seen) else (None, item)
        out.write(msgspec.json.encode(Heard(at_s, event=event, told=told)) + b"\n")

    transcript = Transcript(strict=False, note=note)
    for line in read_lines(path):
        if isinstance(line, Heard) and line.event is not None:
            transcript.seen.append(Seen(*line.event))
        elif isinstance(line, Heard) and line.told is not None and line.told[0] == "stream.reset":
            transcript.cut_to(line.told[1]["valid_through"])
    await SseReader(address.url, address.key, run_id, silence_s=SILENCE_S, transcript=transcript).run()
    note(Told(ENDED, {}), time.monotonic())


def main(role: str, url: str, run_id: str, file: str) -> None:
    """Do a member's work."""
    path = Path(file)
    address = Address(url, os.environ["GATEWAY_KEY"])
    with path.open("ab", buffering=0) as out:
        # A line that was cut by a kill is as good as never written.
        out.truncate(path.read_bytes().rfind(b"\n") + 1)
        asyncio.run({"writer": write, "reader": read}[role](address, run_id, path, out))


if __name__ == "__main__":
    main(*sys.argv[1:])
