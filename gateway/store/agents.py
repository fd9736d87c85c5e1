"""Agents' definitions, every version of them, as bytes; what is in them is the service's."""

from __future__ import annotations

import msgspec

from gateway.store import keys
from gateway.store.link import Link
from gateway.store.scripts import PUT_AGENT, Word


class StoredAgent(msgspec.Struct, frozen=True):
    """A version of an agent: when it was made, and when the first one was, in Unix µs."""

    agent_id: str
    version: int
    updated_us: int
    created_us: int
    definition: bytes


class AgentStore:
    """Definitions by tenant and agent."""

    def __init__(self, reads: Link, writes: Link) -> None:
        self._reads = reads
        self._writes = writes

    async def put(self, tenant: str, agent_id: str, fingerprint: str, definition: bytes) -> tuple[StoredAgent, bool]:
        """Store a definition as the next version; returns what then stands there, and whether it is new."""
        word, reply = await PUT_AGENT.call(
            self._writes,
            [keys.agents(tenant), keys.agent_versions(tenant), keys.agent_ids(tenant)],
            [agent_id, fingerprint, definition],
        )
        version, updated_us, created_us = reply
        return StoredAgent(agent_id, version, updated_us, created_us, definition), word is Word.OK

    async def get(self, tenant: str, agent_id: str, version: int | None = None) -> StoredAgent | None:
        """Return an agent as it is, or as it was in a version; None when there is none."""
        if version is None:
            line = await self._reads.call("HGET", keys.agents(tenant), agent_id)
        else:
            line = await self._reads.call("HGET", keys.agent_versions(tenant), f"{agent_id} {version}")
        return None if line is None else _read(agent_id, line)

    async def page(
        self, tenant: str, after_id: str | None, limit: int, *, within: frozenset[str] | None = None
    ) -> tuple[list[StoredAgent], str | None]:
        """Return agents as they are, by id, and the id after which the next page begins, None at the end.

        Args:
            within: Those that may be shown; None for all.
        """
        if within is None:
            low = "-" if after_id is None else f"({after_id}"
            reply = await self._reads.call("ZRANGE", keys.agent_ids(tenant), low, "+", "BYLEX", "LIMIT", 0, limit + 1)
            ids = [name.decode() for name in reply]
        else:
            ids = sorted(name for name in within if after_id is None or name > after_id)
        shown = ids[:limit]
        if not shown:
            return [], None
        lines = await self._reads.call("HMGET", keys.agents(tenant), *shown)
        found = [_read(name, line) for name, line in zip(shown, lines, strict=True) if line is not None]
        return found, shown[-1] if len(ids) > limit else None


def _read(agent_id: str, line: bytes) -> StoredAgent:
    version, updated_us, created_us, _print, definition = line.split(b" ", 4)
    return StoredAgent(agent_id, int(version), int(updated_us), int(created_us), definition)
