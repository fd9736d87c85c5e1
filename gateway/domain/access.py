"""Who may do what: principals, API keys, and the grant that a request acts under."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from gateway.errors import Forbidden, InvalidBody, NotFound

RUNS_READ: Final = "runs:read"
RUNS_WRITE: Final = "runs:write"
RUNS_INPUT: Final = "runs:input"
WORK: Final = "work"
ADMIN: Final = "admin"

SCOPES: Final = frozenset({RUNS_READ, RUNS_WRITE, RUNS_INPUT, WORK, ADMIN})
TICKET_SCOPES: Final = frozenset({RUNS_READ, RUNS_WRITE, RUNS_INPUT})
DEFAULT_TENANT: Final = "default"
_TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Principal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whoever acts, as the audit trail names them."""

    id: str
    name: str | None = None
    email: str | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """An API key as it is stored: everything but the key.

    `digest` is the SHA-256 of the key in hex; `agents` of None means every agent.
    `rotated_to` is the id of the key that takes its place.
    """

    id: str
    tenant: str
    name: str | None
    principal: Principal
    scopes: frozenset[str]
    agents: frozenset[str] | None
    created_at_ms: int
    revoked_at_ms: int | None
    digest: str
    expires_at_ms: int | None = None
    rotated_to: str | None = None

    def works(self, *, now_ms: int) -> bool:
        """Whether it opens anything at this moment."""
        expired = self.expires_at_ms is not None and self.expires_at_ms <= now_ms
        return self.revoked_at_ms is None and not expired


class Grant(msgspec.Struct, frozen=True):
    """What one request may do. Bounds of None do not bind; `runs` and `thread_id` each open what they name.

    `expires_ms` is Unix time: set for a ticket and an identity provider's token, None for a key.
    `once` is the id of a ticket that opens one connection, None for whatever may be shown again.
    """

    tenant: str
    principal: Principal
    scopes: frozenset[str]
    agents: frozenset[str] | None
    key_id: str
    runs: frozenset[str] | None = None
    thread_id: str | None = None
    expires_ms: int | None = None
    kind: Literal["key", "ticket", "token"] = "key"
    once: str | None = None


def grant_key(record: KeyRecord) -> Grant:
    """Return what the holder of a key may do."""
    return Grant(record.tenant, record.principal, record.scopes, record.agents, record.id)


def require(grant: Grant, scope: str) -> None:
    """Let `grant` pass if it holds `scope`; `admin` holds them all.

    Raises:
        Forbidden: it does not; `facts["required"]` names the scope.
    """
    if scope not in grant.scopes and ADMIN not in grant.scopes:
        raise Forbidden(f"This needs the scope {scope}.", required=scope, scopes=sorted(grant.scopes))


def reaches(grant: Grant, run_id: str, thread_id: str | None, agent_id: str) -> bool:
    """Return whether a run of the grant's tenant lies within its bounds."""
    if grant.agents is not None and agent_id not in grant.agents:
        return False
    if grant.runs is None and grant.thread_id is None:
        return True
    named = grant.runs is not None and run_id in grant.runs
    return named or (grant.thread_id is not None and grant.thread_id == thread_id)


def require_reach(grant: Grant, run_id: str, thread_id: str | None, agent_id: str) -> None:
    """Let `grant` pass if it reaches this run.

    Raises:
        NotFound: it does not; told exactly as if there were no such run.
    """
    if not reaches(grant, run_id, thread_id, agent_id):
        raise unknown_run(run_id)


def unknown_run(run_id: str) -> NotFound:
    """Return the one refusal for a run that is not there, or not there for this caller."""
    return NotFound(f"There is no run {run_id}.", run_id=run_id)


def require_thread(grant: Grant, thread_id: str) -> None:
    """Let `grant` pass if it may follow all of a thread, runs to come included.

    Raises:
        NotFound: it is bound to other runs or another thread.
    """
    bound = grant.runs is not None or grant.thread_id is not None
    if bound and grant.thread_id != thread_id:
        raise NotFound(f"There is no thread {thread_id}.", thread_id=thread_id)


def require_tenant_wide(grant: Grant) -> None:
    """Let `grant` pass if no runs and no thread bind it: lists, the feed, keys and tickets need that.

    Raises:
        Forbidden: it is bound.
    """
    if grant.runs is not None or grant.thread_id is not None:
        raise Forbidden("This credential is bound to certain runs and does not reach the whole tenant.")


def require_creation(grant: Grant, agent_id: str, thread_id: str | None) -> None:
    """Let `grant` pass if it may create a run of this agent in this thread (None: a thread of its own).

    Raises:
        Forbidden: its scopes or bounds do not allow it.
    """
    require(grant, RUNS_WRITE)
    if grant.agents is not None and agent_id not in grant.agents:
        raise Forbidden(f"This credential does not reach the agent {agent_id}.", agents=sorted(grant.agents))
    if grant.thread_id is None or grant.thread_id != thread_id:
        require_tenant_wide(grant)


def narrow(
    grant: Grant,
    *,
    scopes: frozenset[str],
    runs: frozenset[str] | None,
    thread_id: str | None,
    expires_ms: int,
) -> Grant:
    """Return the part of a grant that a ticket shall carry, for no longer than that lasts.

    Raises:
        Forbidden: it would carry more than the key, or `grant` is itself a ticket's.
        InvalidBody: a scope that no ticket may carry.
    """
    if grant.kind == "ticket":
        raise Forbidden("A ticket cannot make tickets; use an API key.")
    if not scopes or not scopes <= TICKET_SCOPES:
        allowed = sorted(TICKET_SCOPES)
        raise InvalidBody("A ticket carries one or more of " + ", ".join(allowed) + ".", allowed=allowed)
    for scope in sorted(scopes):
        require(grant, scope)
    if grant.expires_ms is not None:
        expires_ms = min(expires_ms, grant.expires_ms)
    return msgspec.structs.replace(
        grant, scopes=scopes, runs=runs, thread_id=thread_id, expires_ms=expires_ms, kind="ticket"
    )


def require_administration(grant: Grant, tenant: str) -> None:
    """Let `grant` pass if it may manage keys of `tenant`: its own, and any from the tenant `default`.

    A grant for some agents stays in its tenant, and manages those keys only that `reaches_key` tells.

    Raises:
        Forbidden: it may not.
    """
    require(grant, ADMIN)
    require_tenant_wide(grant)
    if tenant != grant.tenant and (grant.tenant != DEFAULT_TENANT or grant.agents is not None):
        raise Forbidden(f"This key administers the tenant {grant.tenant} only.")


def reaches_key(grant: Grant, record: KeyRecord) -> bool:
    """Return whether a key of a tenant that `grant` administers lies within its bounds: for no other agents."""
    return _covers(grant, record.agents)


def require_key(grant: Grant, record: KeyRecord | None, key_id: str) -> KeyRecord:
    """Return the key's record if `grant` reaches it.

    Raises:
        NotFound: it does not; told exactly as if there were no such key.
    """
    if record is None or not reaches_key(grant, record):
        raise NotFound(f"There is no key {key_id}.", key_id=key_id)
    return record


def require_delegation(grant: Grant, tenant: str, agents: frozenset[str] | None) -> None:
    """Let `grant` pass if it may create a key of `tenant` for these agents: never more than its own reach.

    Raises:
        Forbidden: it may not.
    """
    require_administration(grant, tenant)
    if not _covers(grant, agents):
        raise Forbidden("A key cannot create one that reaches more agents.", agents=sorted(grant.agents or ()))


def _covers(grant: Grant, agents: frozenset[str] | None) -> bool:
    return grant.agents is None or (agents is not None and agents <= grant.agents)


def check_scopes(scopes: frozenset[str]) -> None:
    """Refuse scopes that do not exist, and none at all.

    Raises:
        InvalidBody: `facts["allowed"]` lists those that exist.
    """
    if not scopes or not scopes <= SCOPES:
        allowed = sorted(SCOPES)
        raise InvalidBody("scopes are one or more of " + ", ".join(allowed) + ".", allowed=allowed)


def is_tenant(text: str) -> bool:
    """Whether a tenant may have this name."""
    return _TENANT.fullmatch(text) is not None


def check_tenant(tenant: str) -> None:
    """Refuse a tenant's name that could not stand in a store key or a log line.

    Raises:
        InvalidBody: not 1 to 64 letters, digits, dots, dashes or underscores.
    """
    if not is_tenant(tenant):
        raise InvalidBody("A tenant is 1 to 64 letters, digits, dots, dashes or underscores.", path="$.tenant")
