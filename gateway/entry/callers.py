"""From the credential of a request to the caller it stands for."""

from __future__ import annotations

import secrets

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Scope

from gateway import telemetry
from gateway.domain.access import ADMIN, Grant, Principal, require
from gateway.edge.auth import Credential, require_credential
from gateway.edge.limits import announced_bytes, visit_of
from gateway.edge.plain import find_header
from gateway.edge.query import parse_query
from gateway.edge.tickets import Ticket, TicketHolder, check_origin, sign_ticket, verify_ticket
from gateway.edge.traces import trace_of
from gateway.errors import Unauthenticated
from gateway.service.access import Access
from gateway.service.actors import Caller, check_idempotency_key
from gateway.service.tokens import Tokens
from gateway.store.clock import StoreClock
from gateway.store.tickets import TicketStore


class Binding(msgspec.Struct, frozen=True):
    """What a ticket is bound to, besides what it opens: one connection, pages of one origin."""

    single_use: bool = False
    origin: str | None = None


UNBOUND = Binding()


class Callers:
    """Authenticates requests; tickets are signed with a secret that all processes share.

    Args:
        tickets: Which of those that open one connection have done so.
        secret: The signing secret, None to use the one the store keeps.
        tokens: Those of an identity provider, taken wherever a key is.
    """

    def __init__(
        self,
        access: Access,
        tickets: TicketStore,
        clock: StoreClock,
        *,
        secret: str | None,
        tokens: Tokens | None = None,
    ) -> None:
        self._access = access
        self._tickets = tickets
        self._clock = clock
        self._tokens = tokens
        self._secret = None if secret is None else secret.encode()

    async def authenticate(self, connection: HTTPConnection, scope: str | None, *, tickets: bool = False) -> Caller:
        """Return who asks, if they hold `scope`.

        Args:
            scope: None where it takes the body to tell.
            tickets: Whether `?ticket=` is honoured.

        Raises:
            Unauthenticated, Forbidden: no or a bad credential; one without the scope.
            TooManyRequests: it asks for more than it may.
        """
        headers, query = connection.scope["headers"], parse_query(connection.scope["query_string"])
        credential = require_credential(headers, query, tickets=tickets)
        grant = await self.grant(credential, connection.scope)
        _name_caller(connection, grant)
        visit = visit_of(connection.scope)
        if visit is not None:
            size = announced_bytes(headers)
            await visit.admit(grant.tenant, grant.key_id, size, operator=ADMIN in grant.scopes)
        if scope is not None:
            require(grant, scope)
        await self.spend(grant, connection.scope)
        key = find_header(headers, b"idempotency-key")
        trace = trace_of(connection.scope)
        return Caller(grant, idempotency_key=check_idempotency_key(key), trace_id=trace and trace.trace_id)

    async def grant(self, credential: Credential, scope: Scope) -> Grant:
        """Return what a credential allows that is shown on the connection of `scope`; a ticket is then to be spent.

        Raises:
            Unauthenticated: nothing; `facts["reason"]` says why.
        """
        if credential.kind == "key":
            return await self.grant_key(credential.secret)
        ticket = verify_ticket(credential.secret, await self.signing_secret(), now_ms=self._clock.now_ms())
        check_origin(ticket, scope["headers"])
        grant = _grant(ticket)
        await self._access.admit(grant, now_ms=self._clock.now_ms())
        return grant

    async def grant_key(self, key: str) -> Grant:
        """Return what a key allows, or a token in its place."""
        if self._tokens is not None and self._tokens.looks_like_one(key):
            return await self._tokens.authenticate(key, now_ms=self._clock.now_ms())
        return await self._access.authenticate(key, now_ms=self._clock.now_ms())

    async def spend(self, grant: Grant, scope: Scope) -> None:
        """Let the connection of `scope` be the one that a ticket for one opens; it may ask again.

        Raises:
            Unauthenticated: another was; `facts["reason"]` is ticket_used.
        """
        if grant.once is None:
            return
        connection_id = scope.setdefault("state", {}).setdefault("connection_id", secrets.token_urlsafe(12))
        left_ms = (grant.expires_ms or 0) - self._clock.now_ms()
        if not await self._tickets.use(grant.tenant, grant.once, connection_id, left_ms=left_ms):
            raise Unauthenticated("The ticket opens one connection, and has opened it.", reason="ticket_used")

    async def readmit(self, grant: Grant) -> None:
        """Let a request go on that was admitted long ago.

        Raises:
            Unauthenticated: its credential has ended since.
        """
        reason = await self._access.find_end(grant, now_ms=self._clock.now_ms())
        if reason is not None:
            raise Unauthenticated("The credential of this request has ended.", reason=reason)

    async def make_ticket(self, grant: Grant, ticket_id: str, binding: Binding = UNBOUND) -> str:
        """Return the ticket that carries `grant`, which has a time of expiry; the same for the same id."""
        holder = TicketHolder(grant.principal.id, grant.principal.name, grant.principal.email)
        ticket = Ticket(
            tenant=grant.tenant,
            principal=holder,
            scopes=tuple(sorted(grant.scopes)),
            key_id=grant.key_id,
            expires_ms=grant.expires_ms or 0,
            jti=ticket_id,
            agents=None if grant.agents is None else tuple(sorted(grant.agents)),
            runs=None if grant.runs is None else tuple(sorted(grant.runs)),
            thread_id=grant.thread_id,
            single_use=binding.single_use,
            origin=binding.origin,
        )
        return sign_ticket(ticket, await self.signing_secret())

    async def signing_secret(self) -> bytes:
        """Return the secret that signs tickets and URLs of files."""
        if self._secret is None:
            self._secret = await self._access.signing_secret()
        return self._secret


def _name_caller(connection: HTTPConnection, grant: Grant) -> None:
    """Have log lines say who asks, and about which run."""
    state = connection.scope.setdefault("state", {})
    state["tenant"], state["key_id"] = grant.tenant, grant.key_id
    telemetry.run_id.set(connection.scope.get("path_params", {}).get("run_id"))


def _grant(ticket: Ticket) -> Grant:
    holder = ticket.principal
    return Grant(
        tenant=ticket.tenant,
        principal=Principal(id=holder.id, name=holder.name, email=holder.email),
        scopes=frozenset(ticket.scopes),
        agents=None if ticket.agents is None else frozenset(ticket.agents),
        key_id=ticket.key_id,
        runs=None if ticket.runs is None else frozenset(ticket.runs),
        thread_id=ticket.thread_id,
        expires_ms=ticket.expires_ms,
        kind="ticket",
        once=ticket.jti if ticket.single_use else None,
    )
