"""The inbox of questions, and tickets for those who cannot send headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from gateway.client.models import Question, Ticket
from gateway.client.transport import Transport


class _QuestionPage(msgspec.Struct):
    data: list[Question]
    next_cursor: str | None = None


class Requests:
    """The questions that runs of the tenant wait on."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, status: str = "open") -> AsyncGenerator[Question, None]:
        """Yield questions with their `run_id`; answer one with `client.runs.input`."""
        params: dict[str, Any] = {"status": status}
        while True:
            page = await self._transport.call("GET", "/v1/requests", _QuestionPage, params=params)
            for question in page.data:
                yield question
            if not page.next_cursor:
                return
            params["cursor"] = page.next_cursor


class Tickets:
    """Short-lived passes, to hand to a browser."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        runs: Sequence[str] | None = None,
        thread_id: str | None = None,
        tenant: bool = False,
        scopes: Sequence[str] | None = None,
        ttl_s: int | None = None,
        single_use: bool = False,
        origin: str | None = None,
    ) -> Ticket:
        """Return a ticket for these runs, this thread, or with `tenant` everything, within the key's own scopes.

        `ttl_s` is how long it is good for, in seconds; the gateway has a default and an upper bound.
        With `single_use` it opens one connection: a reader that comes back needs another one.
        With `origin`, such as `https://app.example`, only pages of that origin may show it.
        """
        fields = {"runs": runs, "thread_id": thread_id, "tenant": tenant or None, "scopes": scopes, "ttl_s": ttl_s}
        fields |= {"single_use": single_use or None, "origin": origin}
        body = {name: value for name, value in fields.items() if value is not None}
        return await self._transport.call("POST", "/v1/tickets", Ticket, body=body)
