"""One gateway, as one object."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from gateway.client.backoff import Backoff
from gateway.client.environment import find_key, find_url
from gateway.client.files import Files
from gateway.client.inbox import Requests, Tickets
from gateway.client.models import FeedItem
from gateway.client.position import FeedPosition
from gateway.client.reader import read_stream
from gateway.client.runs import PATIENCE_S, Runs
from gateway.client.transport import Transport
from gateway.client.work import Agents, Work

REPEAT_S = 30.0
SILENCE_S = 45.0
"""Three of the gateway's keep-alives."""


class Client:
    """A gateway's API.

        async with Client("http://127.0.0.1:8000", key="gwk_…") as client:
            run = await client.runs.create("researcher", input={"topic": "tides"})
            async for event in client.runs.events(run.id):
                ...

    Args:
        base_url: its address; ValueError if it is none.
        key: an API key; None for a gateway that needs none.
        backoff: how reconnects and repeats are spaced.
        repeat_s: how long a call is repeated while the gateway is away or answers 503, in seconds.
        silence_s: a stream that says nothing for so long, in seconds, is dead and opened again; more
            than the gateway's keep-alive.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        backoff: Backoff | None = None,
        repeat_s: float | None = REPEAT_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.backoff = backoff or Backoff()
        self._transport = Transport(base_url, key, backoff=self.backoff, repeat_s=repeat_s, silence_s=silence_s)
        self.runs = Runs(self._transport)
        self.agents = Agents(self._transport)
        self.work = Work(self._transport)
        self.files = Files(self._transport)
        self.requests = Requests(self._transport)
        self.tickets = Tickets(self._transport)

    @classmethod
    def from_environment(cls, *, repeat_s: float | None = REPEAT_S) -> Self:
        """Return a client for `GATEWAY_URL` with `GATEWAY_KEY`, or the development key of this directory."""
        key = find_key(os.environ, Path.cwd())
        return cls(find_url(os.environ), key=key, repeat_s=repeat_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    def feed(
        self, *, after: str | None = None, patience_s: float | None = PATIENCE_S
    ) -> AsyncGenerator[FeedItem, None]:
        """Yield every change of a run's status in the tenant as it happens; it never ends by itself.

        Args:
            after: the `cursor` of an earlier item; without it the feed begins now.
            patience_s: how long the gateway may be away, in seconds; None waits for ever.
        """
        return read_stream(self._transport, "/v1/feed", FeedPosition(after), params={}, patience_s=patience_s)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = msgspec.UNSET,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make any other call (`"GET", "/v1/runs/…/steps"`) and return its decoded JSON."""
        return await self._transport.call(method, path, Any, body=body, params=params)
