"""The Lua verbs, one file each, called by hash and loaded where the server does not know them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from importlib import resources
from typing import Any

from redis.exceptions import ResponseError

from gateway.store.link import Argument, Link


class Word(StrEnum):
    """The first element of every script's reply."""

    OK = "OK"
    DUPLICATE = "DUPLICATE"
    MISSING = "MISSING"
    EXISTS = "EXISTS"
    STATUS = "STATUS"
    REVISION = "REVISION"
    SEQ = "SEQ"
    FENCED = "FENCED"
    GAP = "GAP"
    STALE = "STALE"
    MISMATCH = "MISMATCH"
    WRITERS = "WRITERS"
    FULL = "FULL"
    EARLY = "EARLY"
    NEW = "NEW"
    HELD = "HELD"
    OLD = "OLD"
    MOVED = "MOVED"
    CROWDED = "CROWDED"
    LATER = "LATER"
    MORE = "MORE"


_WORDS = {word.encode(): word for word in Word}


class Script:
    """One Lua file; `call` runs it on a link and returns its word and the rest of its reply.

    Args:
        before: Files that hold what several verbs share.
    """

    def __init__(self, name: str, *before: str) -> None:
        folder = resources.files("gateway.store").joinpath("lua")
        self._source = b"".join(folder.joinpath(f"{part}.lua").read_bytes() for part in (*before, name))
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], args: Sequence[Argument], *, whole: bool = False) -> tuple[Argument, ...]:
        """Return the command that runs the script by its hash, or `whole`, by its text."""
        return ("EVAL" if whole else "EVALSHA", self._source if whole else self._sha, len(keys), *keys, *args)

    async def call(self, link: Link, keys: list[str], args: list[Argument]) -> tuple[Word, list[Any]]:
        """Run the script.

        Raises:
            StoreUnavailable: as `Link.call`.
        """
        reply = await self.run(link, keys, args)
        return word_of(reply[0]), reply[1:]

    async def run(self, link: Link, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run the script and return its reply as it is.

        Raises:
            StoreUnavailable: as `Link.call`.
        """
        try:
            return await link.call(*self.command(keys, args))
        except ResponseError as error:
            if not is_unknown(error):
                raise
            return await link.call(*self.command(keys, args, whole=True))


def is_unknown(error: Exception) -> bool:
    """Whether a server says that it does not know a script by its hash."""
    return isinstance(error, ResponseError) and "NOSCRIPT" in str(error)


def word_of(text: bytes) -> Word:
    """Return the word that a reply begins with."""
    return _WORDS[text]


APPEND = Script("append", "writers")
APPEND_PLAIN = Script("append_plain", "writers")
READ_LOG = Script("read_log")
READ_NEWEST = Script("read_newest")
TRIM_LOG = Script("trim_log")
REMOVE_RUN = Script("remove_run")
RESERVE = Script("reserve")
REINDEX = Script("reindex")
READ_INDEXES = Script("read_indexes")
TAKE_DUE = Script("take_due")
SETTLE_TIMER = Script("settle_timer")
ARM_TIMER = Script("arm_timer")
SYNC_QUEUE = Script("sync_queue", "lanes")
RESERVE_RUNS = Script("reserve_runs", "lanes")
LIMIT_QUEUE = Script("limit_queue", "lanes")
PUT_AGENT = Script("put_agent")
FORGET_KEY = Script("forget_key")
CONCLUDE = Script("conclude")
BEGIN_DELIVERY = Script("begin_delivery")
NOTE_DELIVERY = Script("note_delivery")
REWIND_HOOK = Script("rewind_hook")
SWAP_SCHEDULE = Script("swap_schedule")
PUT_FILE = Script("put_file")
REMOVE_FILE = Script("remove_file")
SWAP_KEY = Script("swap_key")
CHECK_RIGHTS = Script("check_rights")
