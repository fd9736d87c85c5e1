"""Reading logs: a run's, or a tenant's feed, which has the same form."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from gateway.entropy import take_random
from gateway.errors import NotFound, StoreUnavailable
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.scripts import READ_LOG, READ_NEWEST, Word

_WRONG_LENGTH: Final = "a notification is as long as its header says"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One stored event: its seq, its tag, its final bytes."""

    seq: int
    tag: int
    line: bytes


class LogName(msgspec.Struct, frozen=True):
    """The keys of one log and the channel on which its appends are told."""

    record: str
    stream: str
    channel: str

    @property
    def label(self) -> str:
        """The run, or the feed of a tenant, for people."""
        return self.record.partition("{")[2].partition("}")[0]

    @classmethod
    def of_run(cls, run_id: str) -> LogName:
        """Name a run's log."""
        return cls(keys.record(run_id), keys.log(run_id), keys.events_channel(run_id))

    @classmethod
    def of_feed(cls, tenant: str) -> LogName:
        """Name a tenant's feed."""
        return cls(keys.feed_record(tenant), keys.feed_log(tenant), keys.feed_channel(tenant))


class LogHead(NamedTuple):
    """Where a log ends, read together with a range of it."""

    seq: int
    tag: int
    first_seq: int
    status: str
    rev: int
    log_expired: bool


class Notice(msgspec.Struct, frozen=True):
    """A notification of an append; without `entries` it only says that `last_seq` exists.

    `before_tag` is the tag of the entry that the first of them follows, 0 at the beginning of the log.
    """

    last_seq: int
    last_tag: int
    status: str
    before_tag: int
    entries: list[Entry]


Found: TypeAlias = tuple["LogHead", list[Entry]]
"""What a read of a log returns: its head, and the entries."""


class LogReader:
    """Range reads over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._looks: dict[tuple[LogName, int], list[asyncio.Future[Found]]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def read(self, name: LogName, from_seq: int, *, entries: int, payload_bytes: int) -> Found:
        """Read from `from_seq`, inclusive, together with the head of the same moment.

        Args:
            payload_bytes: About how much to read, the first entry not counted: it may only verify a place.

        Raises:
            NotFound: there is no such run.
            StoreUnavailable: the store did not answer.
        """
        word, reply = await READ_LOG.call(
            self._link, [name.record, name.stream], [max(from_seq, 0), entries, payload_bytes]
        )
        if word is Word.MISSING:
            await self._link.check_primary(name.record)
            raise NotFound("There is no such run.")
        head = _head(reply)
        if from_seq > head.seq:
            # A log that lacks what was read from it has lost it, unless a replica tells that lags behind.
            await self._link.check_primary(name.record)
        return head, _entries(reply)

    def look(self, name: LogName, seq: int) -> Awaitable[Found]:
        """Read the entry at `seq`, if there is one, together with the head of the same moment.

        Those who ask in one turn of the event loop, before anything is sent, share a read: readers who come together,
        or come back together, stand at the same place.

        Raises: as `read`.
        """
        loop = asyncio.get_running_loop()
        waiting = self._looks.get((name, seq))
        if waiting is None:
            waiting = self._looks[name, seq] = []
            loop.call_soon(self._begin_look, name, seq)
        found: asyncio.Future[Found] = loop.create_future()
        waiting.append(found)
        return found

    def _begin_look(self, name: LogName, seq: int) -> None:
        looking = asyncio.get_running_loop().create_task(self._look(name, seq, self._looks.pop((name, seq))))
        # The loop itself would forget it.
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def _look(self, name: LogName, seq: int, waiting: list[asyncio.Future[Found]]) -> None:
        try:
            found = await self.read(name, seq, entries=1, payload_bytes=1)
        except BaseException as error:
            failure = error if isinstance(error, Exception) else StoreUnavailable("Interrupted.", outcome="unknown")
            for future in waiting:
                if not future.done():
                    future.set_exception(failure)
            if failure is not error:
                raise
        else:
            for future in waiting:
                if not future.done():
                    future.set_result(found)

    async def read_event(self, name: LogName, seq: int) -> bytes | None:
        """Read one event; None where the log does not have it, or not any more.

        Raises: as `read`.
        """
        _head, entries = await self.read(name, seq, entries=1, payload_bytes=1)
        return entries[0].line if entries and entries[0].seq == seq else None

    async def read_newest(self, name: LogName, *, entries: int, payload_bytes: int) -> Found:
        """Read the newest entries in the order of the log, the newest of all whatever its size, and the head.

        Raises:
            NotFound: there is no such run.
            StoreUnavailable: the store did not answer.
        """
        word, reply = await READ_NEWEST.call(self._link, [name.record, name.stream], [entries, payload_bytes])
        if word is Word.MISSING:
            await self._link.check_primary(name.record)
            raise NotFound("There is no such run.")
        return _head(reply), _entries(reply)[::-1]

    async def heads(self, names: list[LogName]) -> list[LogHead | None]:
        """Read the heads of several logs in one round trip; None where there is none."""
        fields = ("head_seq", "head_tag", "first_seq", "status", "rev", "log_expired")
        replies = await self._link.call_many([("HMGET", name.record, *fields) for name in names])
        return [None if r[0] is None else _head([v if v is not None else b"0" for v in r]) for r in replies]


def _head(reply: list[Any]) -> LogHead:
    return LogHead(int(reply[0]), int(reply[1]), int(reply[2]) or 1, reply[3].decode(), int(reply[4]), reply[5] == b"1")


def _entries(reply: list[Any]) -> list[Entry]:
    return [_entry(reply[i], reply[i + 1]) for i in range(6, len(reply), 2)]


def _entry(entry_id: bytes, line: bytes) -> Entry:
    seq, _, tag = entry_id.partition(b"-")
    return Entry(int(seq), int(tag), line)


def parse_notice(payload: bytes) -> Notice:
    """Read what an append published: `first_seq status before_tag tag length tag length …`, a newline, the events.

    Raises:
        ValueError: no append published this.
    """
    header, _, body = payload.partition(b"\n")
    first, status, before_tag, *sizes = header.split(b" ")
    if len(sizes) == 2 and sizes[1] != b"0":
        # By far the most are of one event.
        seq, tag = int(first), int(sizes[0])
        if int(sizes[1]) != len(body):
            raise ValueError(_WRONG_LENGTH)
        return Notice(seq, tag, _status(status), int(before_tag), [Entry(seq, tag, body)])
    if not sizes or len(sizes) % 2:
        raise ValueError("a notification names a tag and a length for each event")
    seq, state = int(first), _status(status)
    if sizes[1] == b"0":
        return Notice(seq, int(sizes[0]), state, int(before_tag), [])
    entries, start = [], 0
    for index in range(0, len(sizes), 2):
        end = start + int(sizes[index + 1])
        entries.append(Entry(seq + index // 2, int(sizes[index]), body[start:end]))
        start = end
    if start != len(body):
        raise ValueError(_WRONG_LENGTH)
    last = entries[-1]
    return Notice(last.seq, last.tag, state, int(before_tag), entries)


@lru_cache(100)
def _status(text: bytes) -> str:
    """Return a status, one text for all that have it."""
    return text.decode()


def new_tags(count: int) -> tuple[int, ...]:
    """Return random 32-bit tags, never zero: an entry's seq alone would not tell a rolled-back log apart."""
    return tuple(tag or 1 for tag in struct.unpack(f"<{count}I", take_random(4 * count)))
