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
            [keys.agents(tenant), keys.agent_versions(tenant)],
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

    async def list(self, tenant: str) -> list[StoredAgent]:
        """Return the tenant's agents as they are, by id."""
        reply = await self._reads.call("HGETALL", keys.agents(tenant))
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return sorted((_read(name.decode(), line) for name, line in pairs), key=lambda agent: agent.agent_id)


def _read(agent_id: str, line: bytes) -> StoredAgent:
    version, updated_us, created_us, _print, definition = line.split(b" ", 4)
    return StoredAgent(agent_id, int(version), int(updated_us), int(created_us), definition)
