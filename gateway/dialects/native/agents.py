"""Routes of the registry: agents and their versions."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer, duration_ms
from gateway.dialects.native.paging import PAGING, read_limit, read_name
from gateway.dialects.native.project import agent_body, list_body
from gateway.dialects.native.webhooks import hook_body, hook_orders
from gateway.dialects.native.wire import PutAgent, Retry
from gateway.domain import access
from gateway.domain.agents import AgentDefinition
from gateway.domain.retry import Policy
from gateway.edge import query as q
from gateway.errors import BadRequest, TooLarge

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")


class AgentRoutes:
    """Agents as resources."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/agents", self.find, methods=["GET"]),
            Route("/v1/agents/{agent_id}", self.put, methods=["PUT"]),
            Route("/v1/agents/{agent_id}", self.get, methods=["GET"]),
        ]

    async def put(self, request: Request) -> Response:
        """`PUT /v1/agents/{id}`: register an agent, or its next version; the same again changes nothing."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        agent_id = request.path_params["agent_id"]
        if not _AGENT_ID.fullmatch(agent_id):
            raise BadRequest("An agent id has 1 to 128 letters, digits or ._:@+-.", agent_id=agent_id[:64])
        body = await self._native.body(request, PutAgent)
        most = self._native.bounds.metadata_bytes
        for name, value in (("presets", body.presets), ("metadata", body.metadata)):
            size = len(msgspec.json.encode(value))
            if size > most:
                raise TooLarge(f"{name} has {size} bytes; at most {most} are allowed.", path=name, limit_bytes=most)
        orders = hook_orders(body.webhooks)
        agent, is_new, fresh = await self._native.agents.put(caller, agent_id, _definition(body), orders)
        shown = [hook_body(hook, fresh.get(hook.id)) for hook in agent.definition.webhooks]
        return answer({**agent_body(agent), "webhooks": shown}, 201 if is_new and agent.version == 1 else 200)

    async def get(self, request: Request) -> Response:
        """`GET /v1/agents/{id}`: the agent as it is, or as it was in `version`."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("version",))
        version = q.read_int(query, "version", low=1, high=2**53)
        return answer(agent_body(await self._native.agents.get(caller.grant, request.path_params["agent_id"], version)))

    async def find(self, request: Request) -> Response:
        """`GET /v1/agents`: the registered agents, by id."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, PAGING)
        limit = read_limit(query, self._native.bounds.list_page)
        agents, next_after = await self._native.agents.page(caller.grant, read_name(query), limit)
        return answer(list_body([agent_body(agent) for agent in agents], next_after))


def _definition(body: PutAgent) -> AgentDefinition:
    return AgentDefinition(
        runtime=body.runtime,
        queue=body.queue,
        policy=_policy(body.retry, body.dead_letter),
        run_timeout_ms=duration_ms(body.run_timeout_s),
        queue_expiry_ms=duration_ms(body.queue_expiry_s),
        lease_ms=duration_ms(body.lease_s),
        max_concurrent=body.max_concurrent,
        presets=body.presets,
        title=body.title,
        metadata=body.metadata,
    )


def _policy(retry: Retry, dead_letter: bool) -> Policy:
    default = Policy()
    initial_ms, max_ms = duration_ms(retry.initial_delay_s), duration_ms(retry.max_delay_s)
    return Policy(
        max_attempts=retry.max_attempts or default.max_attempts,
        backoff=retry.backoff or default.backoff,
        initial_delay_ms=default.initial_delay_ms if initial_ms is None else initial_ms,
        max_delay_ms=max(default.max_delay_ms, initial_ms or 0) if max_ms is None else max_ms,
        dead_letter=dead_letter,
    )
