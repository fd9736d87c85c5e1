"""Readers of several runs on one connection, which come back with what the connection last told."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from typing import Any, Protocol

import httpx
import httpx_sse
import msgspec
from websockets import ConnectionClosed, InvalidHandshake, Subprotocol
from websockets.asyncio.client import connect

from tests.support.transcripts import Transcript

AGAIN_S = 0.01
CLOSE_S = 0.1


class ManyReader(Protocol):
    """Reads so many runs to their ends."""

    transcripts: dict[str, Transcript]

    async def run(self) -> None:
        """Read until as many runs as wanted have ended."""
        ...


def count_complete(transcripts: dict[str, Transcript]) -> int:
    """Return of how many runs the last event has been read."""
    return sum(bool(t.seen) and t.seen[-1].mark == "run.completed" for t in transcripts.values())


class ManySse:
    """Several runs over one stream of server-sent events, through httpx-sse.

    Args:
        path: With a query; what comes of it names the run of each event.
        wanted: How many runs must end before the reader does.
    """

    def __init__(self, url: str, key: str, path: str, *, wanted: int, silence_s: float) -> None:
        self.transcripts: dict[str, Transcript] = defaultdict(Transcript)
        self._url = url
        self._path = path
        self._wanted = wanted
        self._headers = {"authorization": f"Bearer {key}"}
        self._timeout = httpx.Timeout(5, read=silence_s)

    async def run(self) -> None:
        """Read until as many runs as wanted have ended."""
        async with httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=self._timeout) as client:
            while count_complete(self.transcripts) < self._wanted:
                try:
                    await self._read_once(client)
                except httpx.TransportError:
                    await asyncio.sleep(random.uniform(0, AGAIN_S))

    async def _read_once(self, client: httpx.AsyncClient) -> None:
        async with httpx_sse.aconnect_sse(client, "GET", self._path, headers=self._headers) as source:
            if source.response.status_code == 204:
                assert count_complete(self.transcripts) == self._wanted
                return
            source.response.raise_for_status()
            async for event in source.aiter_sse():
                if event.id:
                    self._headers["last-event-id"] = event.id
                self._take(event)
                if count_complete(self.transcripts) == self._wanted:
                    return
        raise AssertionError("the stream ended cleanly, but its runs did not")

    def _take(self, event: httpx_sse.ServerSentEvent) -> None:
        if not event.data:  # httpx-sse has an event for `retry:`, too
            return
        facts: dict[str, Any] = msgspec.json.decode(event.data)
        if event.event == "message":
            self.transcripts[facts["run_id"]].take_event(facts["cursor"], facts["event"])
        elif "run_id" in facts:
            self.transcripts[facts["run_id"]].take(event.event, "", event.data)


class ManySocket:
    """Several runs over one WebSocket."""

    def __init__(self, url: str, key: str, run_ids: list[str], *, silence_s: float) -> None:
        self.transcripts = {run_id: Transcript() for run_id in run_ids}
        self._url = url.replace("http:", "ws:") + "/v1/ws"
        self._key = key
        self._silence_s = silence_s

    async def run(self) -> None:
        """Read until all runs have ended."""
        while count_complete(self.transcripts) < len(self.transcripts):
            try:
                await self._read_once()
            except (ConnectionClosed, OSError, EOFError, TimeoutError, InvalidHandshake):
                await asyncio.sleep(random.uniform(0, AGAIN_S))

    async def _read_once(self) -> None:
        async with connect(
            self._url,
            additional_headers={"Authorization": f"Bearer {self._key}"},
            subprotocols=[Subprotocol("gateway.v1")],
            open_timeout=self._silence_s,
            ping_interval=self._silence_s / 2,
            ping_timeout=self._silence_s / 2,
            close_timeout=CLOSE_S,
            proxy=None,
        ) as socket:
            for run_id, transcript in self.transcripts.items():
                place = {"after": transcript.cursor} if transcript.cursor else {}
                await socket.send(json.dumps({"type": "subscribe", "id": run_id, "run_id": run_id, **place}))
            while count_complete(self.transcripts) < len(self.transcripts):
                self._take(await socket.recv(decode=False))

    def _take(self, text: bytes) -> None:
        frame: dict[str, Any] = msgspec.json.decode(text)
        if frame["type"] == "ack":
            return
        transcript = self.transcripts[frame["run_id"]]
        if frame["type"] == "event":
            transcript.take_event(frame["cursor"], frame["event"])
        else:
            transcript.take(frame["type"], "", text)


class FeedReader:
    """The tenant's feed of status changes, through httpx-sse; `changes` are the statuses of each run, in order."""

    def __init__(self, url: str, key: str, *, silence_s: float) -> None:
        self.changes: dict[str, list[str]] = defaultdict(list)
        self.seqs: list[int] = []
        self._url = url
        self._headers = {"authorization": f"Bearer {key}", "last-event-id": "0"}
        self._timeout = httpx.Timeout(5, read=silence_s)

    async def run(self) -> None:
        """Read for ever."""
        async with httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=self._timeout) as client:
            while True:
                try:
                    await self._read_once(client)
                except httpx.TransportError:
                    await asyncio.sleep(random.uniform(0, AGAIN_S))

    async def _read_once(self, client: httpx.AsyncClient) -> None:
        async with httpx_sse.aconnect_sse(client, "GET", "/v1/feed", headers=self._headers) as source:
            source.response.raise_for_status()
            async for event in source.aiter_sse():
                if event.event != "message" or not event.data:
                    assert event.event in ("stream.open", "message"), event
                    continue
                change = msgspec.json.decode(event.data)
                self._headers["last-event-id"] = event.id
                self.seqs.append(change["seq"])
                known = self.changes[change["run_id"]]
                assert change["data"]["previous"] == (known[-1] if known else None)
                known.append(change["data"]["status"])
