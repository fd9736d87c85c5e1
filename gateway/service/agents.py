"""The registry of agents: what a run of each is queued, attempted and limited by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.agents import Agent, AgentDefinition, check_policy
from gateway.domain.run import Run
from gateway.errors import Forbidden, NotFound
from gateway.service.actors import Caller, fingerprint_of
from gateway.service.audit import audits
from gateway.service.hooks import HookOrder, Hooks
from gateway.store.agents import AgentStore, StoredAgent
from gateway.store.queue import QueueStore


class Agents:
    """Agents of all tenants, as callers may see them."""

    def __init__(self, store: AgentStore, queues: QueueStore, hooks: Hooks) -> None:
        self._store = store
        self._queues = queues
        self._hooks = hooks

    @audits("put_agent")
    async def put(
        self, caller: Caller, agent_id: str, definition: AgentDefinition, orders: Sequence[HookOrder] = ()
    ) -> tuple[Agent, bool, dict[str, str]]:
        """Register an agent, or its next version; the same definition again changes nothing.

        Args:
            orders: Its webhooks.

        Returns:
            The agent as it now is, whether this made a version, and secrets that were made up for new webhooks.

        Raises:
            Forbidden: the grant does not reach this agent.
            InvalidBody: the retry policy contradicts itself, or a webhook cannot be.
        """
        access.require_tenant_wide(caller.grant)
        _require_agent(caller.grant, agent_id)
        check_policy(definition.policy)
        orders = self._hooks.check(orders)
        present = (await self.find(caller.tenant, agent_id)).definition.webhooks
        # Their secrets first: no run may find a webhook without one.
        hooks, fresh = await self._hooks.register(caller.tenant, agent_id, orders, present)
        definition = msgspec.structs.replace(definition, webhooks=hooks)
        encoded = msgspec.json.encode(definition)
        stored, is_new = await self._store.put(
            caller.tenant, agent_id, fingerprint_of("agent", encoded.decode()), encoded
        )
        # Also when nothing is new: whoever said it before may not have got this far.
        await self._queues.limit(caller.tenant, agent_id, definition.max_concurrent)
        await self._hooks.forget(caller.tenant, agent_id, present, hooks)
        return _agent(stored), is_new, fresh

    async def get(self, grant: Grant, agent_id: str, version: int | None = None) -> Agent:
        """Return a registered agent, as it is or as it was in a version.

        Raises:
            NotFound: there is none, or none for this caller.
        """
        reachable = grant.agents is None or agent_id in grant.agents
        stored = await self._store.get(grant.tenant, agent_id, version) if reachable else None
        if stored is None:
            about = "" if version is None else f" in version {version}"
            raise NotFound(f"There is no agent {agent_id}{about}.", agent_id=agent_id)
        return _agent(stored)

    async def find(self, tenant: str, agent_id: str) -> Agent:
        """Return an agent, with the defaults where it was never registered."""
        stored = await self._store.get(tenant, agent_id)
        return Agent(agent_id, 0, AgentDefinition()) if stored is None else _agent(stored)

    async def preset(self, run: Run) -> Any:
        """Return the configuration that the run's preset names, None where it has no preset.

        It is that of the version the run recorded; a restart may have named one that came later.
        """
        name, spec = run.state.preset, run.spec
        for version in (spec.agent_version, None):
            stored = None if name is None else await self._store.get(spec.tenant, spec.agent_id, version)
            presets = {} if stored is None else _agent(stored).definition.presets
            if name in presets:
                return presets[name]
        return None

    async def page(self, grant: Grant, after_id: str | None, limit: int) -> tuple[list[Agent], str | None]:
        """Return registered agents within reach, by id, and after which id the next page begins, None at the end."""
        access.require_tenant_wide(grant)
        found, next_after = await self._store.page(grant.tenant, after_id, limit, within=grant.agents)
        return [_agent(stored) for stored in found], next_after


def _require_agent(grant: Grant, agent_id: str) -> None:
    if grant.agents is not None and agent_id not in grant.agents:
        raise Forbidden(f"This credential does not reach the agent {agent_id}.", agents=sorted(grant.agents))


def _agent(stored: StoredAgent) -> Agent:
    definition = msgspec.json.decode(stored.definition, type=AgentDefinition)
    return Agent(stored.agent_id, stored.version, definition, stored.created_us, stored.updated_us)
