"""Subscribing, leaving and appending in any order: what a client may rely on about the order of frames."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.sockets import Frame, SocketClient, open_socket

pytestmark = pytest.mark.anyio

LARGE = ("log", {"level": "info", "message": "x" * 30_000})


class Followed:
    """What a client knows of one run, frame by frame; any frame that breaks a promise fails the test."""

    def __init__(self) -> None:
        self.expects = "nothing"
        self.seq = 0
        self.cursor: str | None = None
        self.events = 0

    def acknowledge(self, kind: str) -> None:
        """Note that a command was acknowledged: a subscription opens next, after the end of one nothing comes."""
        self.expects = "stream.open" if kind == "subscribe" else "nothing"

    def take(self, frame: Frame) -> None:
        """Check a frame of the run."""
        opens = frame["type"] == "stream.open"
        assert self.expects == ("stream.open" if opens else "event"), (self.expects, frame["type"])
        if opens:
            self.seq, self.expects = frame["after_seq"], "event"
        elif frame["type"] == "stream.end":
            self.expects = "nothing"
        elif frame["type"] == "event":
            assert frame["event"]["seq"] == self.seq + 1
            self.seq, self.cursor = self.seq + 1, frame["cursor"]
            self.events += 1


async def read(socket: SocketClient, sent: dict[str, tuple[str, str]], followed: dict[str, Followed]) -> None:
    """Check frames until every command was answered."""
    while sent:
        frame = await socket.next()
        if frame["type"] == "ack":
            kind, run_id = sent.pop(frame["id"])
            followed[run_id].acknowledge(kind)
        else:
            assert frame["type"] != "error", frame
            followed[frame["run_id"]].take(frame)


@pytest.fixture(scope="module")
async def short(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that keeps so little in memory that most is read from the log."""
    async with run_gateway(store.url, ring_entries=16) as running:
        yield running


@pytest.mark.parametrize("seed", range(6))
async def test_frames_keep_their_order_whatever_is_asked(short: RunningGateway, seed: int) -> None:
    """The ack of a subscription comes before its frames, events follow one another, and nothing follows a leave."""
    api, chance = short, random.Random(seed)
    runs = [(await api.run_in("running"))["id"] for _ in range(3)]
    followed = {run_id: Followed() for run_id in runs}

    async def write() -> None:
        for _ in range(40):
            await api.append(chance.choice(runs), *[chance.choice((LOG, LARGE))] * chance.randrange(1, 8))
        for run_id in runs:
            await api.append(run_id, COMPLETE)

    writing = asyncio.create_task(write())
    try:
        async with open_socket(api, reads=bool(seed % 2)) as socket:
            sent: dict[str, tuple[str, str]] = {}
            for _ in range(40):
                run_id = chance.choice(runs)
                place: dict[str, Any] = chance.choice(({}, {"after_seq": followed[run_id].seq}))
                kind, members = chance.choice((("unsubscribe", {}), ("subscribe", place), ("subscribe", place)))
                sent[await socket.send(kind, run_id=run_id, **members)] = (kind, run_id)
                if chance.random() < 0.4:
                    await read(socket, sent, followed)
            await read(socket, sent, followed)
    finally:
        writing.cancel()
        await asyncio.wait([writing])
    assert sum(one.events for one in followed.values()) > 100
