"""Routes of access: browser tickets and API keys."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer
from gateway.dialects.native.project import at, key_body, list_body
from gateway.dialects.native.wire import CreateKey, CreateTicket, RotateKey
from gateway.domain import access
from gateway.domain.access import Grant, Principal
from gateway.edge import query as q
from gateway.edge.origins import parse_origin
from gateway.edge.tickets import new_ticket_id
from gateway.entry.callers import Binding
from gateway.errors import InvalidBody
from gateway.service.access import new_key_id
from gateway.service.actors import parse_run_id
from gateway.service.audit import audited

TICKET_S = 300


class AccessRoutes:
    """Tickets and keys."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/tickets", self.create_ticket, methods=["POST"]),
            Route("/v1/keys", self.create_key, methods=["POST"]),
            Route("/v1/keys", self.list_keys, methods=["GET"]),
            Route("/v1/keys/{key_id}/rotate", self.rotate_key, methods=["POST"]),
            Route("/v1/keys/{key_id}", self.revoke_key, methods=["DELETE"]),
        ]

    async def create_ticket(self, request: Request) -> Response:
        """`POST /v1/tickets`: a short-lived credential for an address bar, an EventSource or a WebSocket."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        body = await self._native.body(request, CreateTicket)
        if body.tenant == (body.runs is not None or body.thread_id is not None):
            raise InvalidBody("Name the runs or the thread that the ticket opens, or say tenant: true.", path="$.runs")
        longest_s = self._native.bounds.ticket_ttl_s
        if body.ttl_s is not None and body.ttl_s > longest_s:
            raise InvalidBody(f"ttl_s is at most {longest_s}.", path="$.ttl_s")
        binding = Binding(body.single_use, _read_origin(body.origin))
        ttl_s = min(TICKET_S, longest_s) if body.ttl_s is None else body.ttl_s
        grant = access.narrow(
            caller.grant,
            scopes=frozenset(body.scopes or [access.RUNS_READ]),
            runs=None if body.runs is None else frozenset(map(parse_run_id, body.runs)),
            thread_id=body.thread_id,
            expires_ms=self._native.clock.now_ms() + ttl_s * 1000,
        )
        await self._check_runs(caller.grant, grant)
        decided = msgspec.json.encode([grant.expires_ms, new_ticket_id()]).decode()
        asked = msgspec.to_builtins(body)
        expires_ms, ticket_id = msgspec.json.decode(await self._native.once.settle(caller, "ticket", asked, decided))
        grant = msgspec.structs.replace(grant, expires_ms=expires_ms)
        with audited(caller, "create_ticket", ticket_id):
            ticket = await self._native.callers.make_ticket(grant, ticket_id, binding)
        told = {"ticket": ticket, "expires_at": at(grant.expires_ms), "scopes": sorted(grant.scopes)}
        return answer({**told, "single_use": binding.single_use, "origin": binding.origin}, 201)

    async def _check_runs(self, grant: Grant, narrowed: Grant) -> None:
        for run_id in narrowed.runs or ():
            await self._native.runs.get(grant, run_id)

    async def create_key(self, request: Request) -> Response:
        """`POST /v1/keys`: a key, shown this once."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        body = await self._native.body(request, CreateKey)
        tenant = body.tenant or caller.tenant
        agents = None if body.agents is None else frozenset(body.agents)
        access.require_delegation(caller.grant, tenant, agents)
        access.check_scopes(frozenset(body.scopes))
        access.check_tenant(tenant)
        named = body.principal
        principal = None if named is None else Principal(id=named.id, name=named.name, email=named.email)
        mine = new_key_id()
        key_id = await self._native.once.settle(caller, "key", msgspec.to_builtins(body), mine)
        known = None if key_id == mine else await self._native.access.find_key(tenant, key_id)
        if known is not None:
            # Asked for again: the key was shown once, and nothing that is kept could show it again.
            return answer({"key": None, **key_body(known)})
        now_ms = self._native.clock.now_ms()
        with audited(caller, "create_key", key_id):
            secret, record = await self._native.access.create_key(
                tenant=tenant,
                name=body.name,
                principal=principal,
                scopes=frozenset(body.scopes),
                agents=agents,
                key_id=key_id,
                now_ms=now_ms,
                expires_at_ms=None if body.expires_in_s is None else now_ms + body.expires_in_s * 1000,
            )
        return answer({"key": secret, **key_body(record)}, 201)

    async def rotate_key(self, request: Request) -> Response:
        """`POST /v1/keys/{id}/rotate`: the key that takes another's place, shown this once."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        body = await self._native.json(request, RotateKey)
        tenant, key_id = await self._require_key(caller.grant, request)
        mine = new_key_id()
        asked = {"key_id": key_id, **msgspec.to_builtins(body)}
        new_id = await self._native.once.settle(caller, "rotate_key", asked, mine)
        known = None if new_id == mine else await self._native.access.find_key(tenant, new_id)
        if known is not None:
            return answer({"key": None, **key_body(known)})
        with audited(caller, "rotate_key", key_id):
            secret, record, _old = await self._native.access.rotate_key(
                tenant,
                key_id,
                overlap_ms=body.overlap_s * 1000,
                lifetime_ms=None if body.expires_in_s is None else body.expires_in_s * 1000,
                now_ms=self._native.clock.now_ms(),
                new_id=new_id,
            )
        return answer({"key": secret, **key_body(record)}, 201)

    async def _require_key(self, grant: Grant, request: Request) -> tuple[str, str]:
        """Return the tenant and the id of the key in the path, which `grant` administers."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("tenant",))
        tenant = q.read_text(query, "tenant") or grant.tenant
        access.require_administration(grant, tenant)
        key_id = request.path_params["key_id"]
        access.require_key(grant, await self._native.access.find_key(tenant, key_id), key_id)
        return tenant, key_id

    async def list_keys(self, request: Request) -> Response:
        """`GET /v1/keys`: the tenant's keys within reach, without the keys themselves."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("tenant",))
        tenant = q.read_text(query, "tenant") or caller.tenant
        access.require_administration(caller.grant, tenant)
        records = await self._native.access.list_keys(tenant)
        mine = [key_body(record) for record in records if access.reaches_key(caller.grant, record)]
        return answer(list_body(mine, None))

    async def revoke_key(self, request: Request) -> Response:
        """`DELETE /v1/keys/{id}`: end a key and every stream and ticket that came of it."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        tenant, key_id = await self._require_key(caller.grant, request)
        with audited(caller, "revoke_key", key_id):
            record = await self._native.access.revoke_key(tenant, key_id, now_ms=self._native.clock.now_ms())
        return answer(key_body(record))


def _read_origin(text: str | None) -> str | None:
    origin = None if text is None else parse_origin(text)
    if origin is None and text is not None:
        detail = "origin: expected a scheme and a host, as https://app.example or http://localhost:3000."
        raise InvalidBody(detail, path="$.origin")
    return origin
