"""Agents: how their runs are queued, attempted and limited, and what a run may say otherwise."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.domain.hooks import Hook
from gateway.domain.retry import Policy
from gateway.domain.run import RunSpec
from gateway.errors import InvalidBody

WORKFLOW, CONVERSATIONAL = "workflow", "conversational"


class AgentDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent's runs have in common; an agent that was never registered has the defaults. Times in ms.

    `presets` are named configurations that a run is created or restarted with.
    `max_concurrent` bounds how many of its runs workers hold at once, in each queue.
    """

    runtime: str = WORKFLOW
    queue: str = "default"
    policy: Policy = Policy()
    run_timeout_ms: int | None = None
    queue_expiry_ms: int | None = None
    lease_ms: int | None = None
    max_concurrent: int | None = None
    presets: dict[str, Any] = {}
    title: str | None = None
    metadata: dict[str, Any] = {}
    webhooks: tuple[Hook, ...] = ()


class Agent(msgspec.Struct, frozen=True):
    """An agent at one of its versions; version 0 was never registered. Times in Unix µs."""

    id: str
    version: int
    definition: AgentDefinition
    created_us: int | None = None
    updated_us: int | None = None


class Overrides(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run says otherwise than its agent; None says nothing. Times in ms."""

    queue: str | None = None
    max_attempts: int | None = None
    backoff: str | None = None
    initial_delay_ms: int | None = None
    max_delay_ms: int | None = None
    dead_letter: bool | None = None
    timeout_ms: int | None = None
    queue_expiry_ms: int | None = None
    lease_ms: int | None = None


def apply_policy(spec: RunSpec, agent: Agent, overrides: Overrides, *, start_timeout_ms: int, lease_ms: int) -> RunSpec:
    """Return the spec with what its agent, as it now is, and its own overrides say of its execution.

    Args:
        start_timeout_ms: How long a direct run waits for its first append where nobody says otherwise.
        lease_ms: How long a claim holds where nobody says otherwise.

    Raises:
        InvalidBody: the retry policy contradicts itself.
    """
    definition = agent.definition
    expiry_ms = _first(overrides.queue_expiry_ms, definition.queue_expiry_ms)
    return replace(
        spec,
        agent_version=agent.version,
        queue=overrides.queue or definition.queue,
        policy=policy_of(agent, overrides),
        overrides=msgspec.to_builtins(overrides),
        timeout_ms=_first(overrides.timeout_ms, definition.run_timeout_ms),
        start_timeout_ms=start_timeout_ms if expiry_ms is None and not spec.is_queued else expiry_ms,
        lease_ms=_first(overrides.lease_ms, definition.lease_ms) or lease_ms,
        max_concurrent=definition.max_concurrent,
    )


def policy_of(agent: Agent, overrides: Overrides) -> Policy:
    """Return the retry policy of a run.

    Raises:
        InvalidBody: the first delay would be longer than the longest.
    """
    names = ("max_attempts", "backoff", "initial_delay_ms", "max_delay_ms", "dead_letter")
    given = {name: getattr(overrides, name) for name in names if getattr(overrides, name) is not None}
    return check_policy(replace(agent.definition.policy, **given))


def check_policy(policy: Policy) -> Policy:
    """Return a policy whose values agree.

    Raises:
        InvalidBody: the first delay is longer than the longest.
    """
    if policy.initial_delay_ms > policy.max_delay_ms:
        raise InvalidBody("retry: initial_delay_s is more than max_delay_s.", path="$.retry.initial_delay_s")
    return policy


def check_preset(agent: Agent, preset: str | None) -> None:
    """Refuse a preset that the agent does not have.

    Raises:
        InvalidBody: `facts["known"]` lists those that it has.
    """
    known = agent.definition.presets
    if preset is not None and preset not in known:
        raise InvalidBody(
            f"preset: the agent {agent.id} has no preset {preset!r}.", path="$.preset", known=sorted(known)
        )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
