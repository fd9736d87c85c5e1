"""Who reads what at this moment, in every process of every gateway on the store: each is asked, and tells its own."""

from __future__ import annotations

import asyncio
import heapq
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from gateway.domain.access import Grant, require_administration
from gateway.errors import StoreUnavailable
from gateway.hub.hub import Hub
from gateway.hub.outlet import Outlet
from gateway.hub.standing import Standing, stand, why_behind
from gateway.hub.tail import Tail
from gateway.store import keys

logger = logging.getLogger(__name__)

EVERY_TENANT: Final = "*"
ANSWER_S: Final = 2.0
"""How long the other processes are waited for."""
SLICE: Final = 2_000
"""Connections looked at before the event loop gets a turn."""
_ID: Final = re.compile(r"([0-9]{1,17})-([0-9a-f]{1,32})-([0-9]{1,17})")


class Place(NamedTuple):
    """A connection's place in the list: when it was opened in Unix µs, by which process, and as its how many-eth."""

    opened_us: int
    process: str
    serial: int

    @property
    def text(self) -> str:
        """The connection's id, and the cursor that leads on from it."""
        return f"{self.opened_us}-{self.process}-{self.serial}"


def parse_place(text: str) -> Place | None:
    """Return the place that a cursor names; None for what is no cursor of this list."""
    match = _ID.fullmatch(text)
    return None if match is None else Place(int(match[1]), match[2], int(match[3]))


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Which readers are asked for, oldest first.

    Args:
        tenant: Whose; `EVERY_TENANT` for all.
        behind_s: Only those that have lacked events for so long, 0 for all that lack some; None for all.
    """

    tenant: str
    limit: int
    after: Place | None = None
    run_id: str | None = None
    behind_s: float | None = None


class Found(NamedTuple):
    """A page of readers, and how many processes have told theirs of how many that were asked.

    `asked` is None while the store is away: this process then speaks for itself.
    """

    readers: list[Standing]
    next_after: str | None
    asked: int | None
    answered: int


class _Question(msgspec.Struct, frozen=True):
    id: int
    reply_to: str
    wish: Wish
    agents: frozenset[str] | None


class _Told(msgspec.Struct, frozen=True):
    """One process's answer: the first of its readers, `limit` and one more at most."""

    id: int
    readers: list[tuple[Place, Standing]]


class _Inquiry:
    """A question that waits for its answers."""

    def __init__(self) -> None:
        self.told: list[_Told] = []
        self.changed = asyncio.Event()


_encode: Final = msgspec.json.Encoder().encode
_question: Final = msgspec.json.Decoder(_Question)
_told: Final = msgspec.json.Decoder(_Told)


class Readers:
    """The connections of all processes; `run` lets this one be asked.

    Args:
        process_id: Names this process in ids, and the channel on which it is answered.
    """

    def __init__(self, hub: Hub, tail: Tail, *, process_id: str) -> None:
        self._hub = hub
        self._tail = tail
        self._process_id = process_id
        # Fixed, so that a connection's id stays what it is whatever is done to the clock.
        self._epoch_s = time.time() - time.monotonic()
        self._ids = count(1)
        self._inquiries: dict[int, _Inquiry] = {}
        self._one_look = asyncio.Lock()

    async def run(self) -> None:
        """Listen to questions and answers; returns once the store has confirmed that, and they go on coming."""
        await self._follow(keys.READERS_CHANNEL, self._hear)
        await self._follow(keys.told_channel(self._process_id), self._take)

    async def _follow(self, channel: str, handler: Callable[[bytes], None]) -> None:
        while True:
            try:
                return await self._tail.follow(channel, handler)
            except StoreUnavailable:
                await self._tail.wait_store()

    async def list(self, grant: Grant, wish: Wish) -> Found:
        """Return a page of the readers that are open.

        Raises:
            Forbidden: `grant` does not administer the tenant.
        """
        require_administration(grant, wish.tenant)
        question = _Question(next(self._ids), keys.told_channel(self._process_id), wish, grant.agents)
        inquiry = self._inquiries[question.id] = _Inquiry()
        try:
            asked = await self._ask(question, inquiry)
        except StoreUnavailable:
            asked = None
            inquiry.told = [await self._look(question)]
        finally:
            del self._inquiries[question.id]
        found = heapq.nsmallest(
            wish.limit + 1, (each for told in inquiry.told for each in told.readers), key=itemgetter(0)
        )
        page = found[: wish.limit]
        next_after = page[-1][0].text if len(found) > wish.limit else None
        return Found([standing for _, standing in page], next_after, asked, len(inquiry.told))

    async def _ask(self, question: _Question, inquiry: _Inquiry) -> int:
        asked = await self._tail.tell(keys.READERS_CHANNEL, _encode(question))
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while len(inquiry.told) < asked:
                    inquiry.changed.clear()
                    await inquiry.changed.wait()
        return asked

    def _hear(self, payload: bytes) -> None:
        self._hub.spawn(self._answer(_question.decode(payload), time.monotonic()))

    async def _answer(self, question: _Question, heard_s: float) -> None:
        # One look at a time: whoever asks much waits, and nobody's events do.
        async with self._one_look:
            if time.monotonic() - heard_s < ANSWER_S:
                told = await self._look(question)
                with suppress(StoreUnavailable):
                    await self._tail.tell(question.reply_to, _encode(told))

    def _take(self, payload: bytes) -> None:
        told = _told.decode(payload)
        inquiry = self._inquiries.get(told.id)
        if inquiry is not None:
            inquiry.told.append(told)
            inquiry.changed.set()

    async def _look(self, question: _Question) -> _Told:
        """Return the first of this process's readers that are asked for, where each stands."""
        wish, places = question.wish, []
        for index, outlet in enumerate(list(self._hub.outlets)):
            if self._is_meant(outlet, question):
                place = self._place(outlet)
                if wish.after is None or place > wish.after:
                    places.append((place, outlet))
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        first = heapq.nsmallest(wish.limit + 1, places, key=itemgetter(0))
        return _Told(question.id, [(place, stand(outlet, place.text, outlet.grant)) for place, outlet in first])

    def _place(self, outlet: Outlet) -> Place:
        return Place(round((self._epoch_s + outlet.opened_s) * 1e6), self._process_id, outlet.serial)

    @staticmethod
    def _is_meant(outlet: Outlet, question: _Question) -> bool:
        grant, wish = outlet.grant, question.wish
        if outlet.closed or not isinstance(grant, Grant) or wish.tenant not in (EVERY_TENANT, grant.tenant):
            return False
        if question.agents is not None and (grant.agents is None or not grant.agents <= question.agents):
            return False
        if wish.run_id is not None and all(reader.channel.name.label != wish.run_id for reader in outlet.readers):
            return False
        return wish.behind_s is None or _is_behind(outlet, wish.behind_s)


def _is_behind(outlet: Outlet, least_s: float) -> bool:
    if not least_s:
        return why_behind(outlet) is not None
    return outlet.busy and time.monotonic() - outlet.behind_since_s >= least_s
