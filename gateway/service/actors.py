"""From who is asking to what the log says of it, and to how a repeated request is recognised."""

from __future__ import annotations

import re

import msgspec
from ulid import ULID

from gateway.domain.access import Grant, require_reach, unknown_run
from gateway.domain.run import SYSTEM, Actor, Run
from gateway.errors import BadRequest
from gateway.store.keys import digest
from gateway.store.runs import Dedupe

_RUN_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)

IDEMPOTENCY_KEY_CHARS = 256


class Caller(msgspec.Struct, frozen=True):
    """Who asks (`by_system`: the gateway), what for in their own words, under which idempotency key, in which trace."""

    grant: Grant
    triggered_by: str | None = None
    idempotency_key: str | None = None
    by_system: bool = False
    trace_id: str | None = None

    @property
    def tenant(self) -> str:
        """The tenant all of this happens in."""
        return self.grant.tenant

    @property
    def actor(self) -> Actor:
        """The caller as the audit trail names it."""
        if self.by_system:
            return msgspec.structs.replace(SYSTEM, triggered_by=self.triggered_by)
        principal = self.grant.principal
        return Actor(self.grant.kind, principal.id, principal.name, principal.email, self.triggered_by)

    def dedupe(self, action: str, body: object, lifetime_ms: int) -> Dedupe:
        """Return how a repeat of `action` with this body is recognised; nothing without an idempotency key."""
        if self.idempotency_key is None:
            return Dedupe()
        return Dedupe(
            fingerprint=fingerprint_of(action, body),
            idempotency=digest(action, self.idempotency_key),
            lifetime_ms=lifetime_ms,
        )


class Whose(msgspec.Struct, frozen=True):
    """What decides who reaches a run, and its trace; it never changes."""

    run_id: str
    tenant: str
    thread_id: str
    agent_id: str
    trace_id: str | None = None


def fingerprint_of(action: str, body: object) -> str:
    """Return a digest that is equal for equal bodies of the same action."""
    return digest(action, msgspec.json.encode(body, order="deterministic").decode())


def check_idempotency_key(key: str | None) -> str | None:
    """Return a caller's idempotency key as given.

    Raises:
        BadRequest: empty, too long, or not printable ASCII.
    """
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable()):
        raise BadRequest(f"Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_CHARS} printable ASCII characters.")
    return key


def parse_run_id(text: str) -> str:
    """Return a run id in its one spelling.

    Raises:
        NotFound: no run can have this id.
    """
    if not is_run_id(text):
        raise unknown_run(text[:64])
    return text.upper()


def is_run_id(text: str) -> bool:
    """Whether a run can have this id."""
    return _RUN_ID.fullmatch(text) is not None


def run_id_ms(run_id: str) -> int:
    """Return the Unix time in milliseconds at which a run of this id was made."""
    return ULID.from_str(run_id).milliseconds


def require_run(grant: Grant, run: Run) -> Run:
    """Return `run` if the grant reaches it; told exactly as if there were no such run otherwise."""
    require_whose(grant, whose_is(run))
    return run


def whose_is(run: Run) -> Whose:
    """Return what of a run decides who reaches it; it never changes."""
    return Whose(run.id, run.spec.tenant, run.spec.thread_id, run.spec.agent_id, run.spec.trace_id)


def require_whose(grant: Grant, whose: Whose) -> None:
    """Let a grant pass that reaches the run; see `require_run`."""
    if whose.tenant != grant.tenant:
        raise unknown_run(whose.run_id)
    require_reach(grant, whose.run_id, whose.thread_id, whose.agent_id)


def is_bounded(grant: Grant) -> bool:
    """Whether the grant reaches only some of its tenant's runs."""
    return grant.agents is not None or grant.runs is not None or grant.thread_id is not None
