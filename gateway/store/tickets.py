"""Tickets that open one connection, and which one it was."""

from __future__ import annotations

from typing import Final

from gateway.store import keys
from gateway.store.link import Link

MARGIN_MS: Final = 60_000
"""How much longer than its ticket a note is kept: clocks need not agree to the millisecond."""


class TicketStore:
    """Notes of used tickets, the same for all processes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def use(self, tenant: str, ticket_id: str, connection_id: str, *, left_ms: int) -> bool:
        """Note that a connection shows a ticket; False when another one has before.

        Args:
            left_ms: How long the ticket is good for.
        """
        name = keys.used_ticket(tenant, ticket_id)
        earlier: bytes | None = await self._link.call(
            "SET", name, connection_id, "NX", "GET", "PX", max(left_ms, 0) + MARGIN_MS
        )
        # The same one may ask again: when it was not told of the answer.
        return earlier is None or earlier.decode() == connection_id
