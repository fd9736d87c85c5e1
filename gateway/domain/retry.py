"""When a failed attempt is followed by another: how many, and after how long."""

from __future__ import annotations

import msgspec

FIXED, LINEAR, EXPONENTIAL = "fixed", "linear", "exponential"
BACKOFFS = (FIXED, LINEAR, EXPONENTIAL)

JITTER = 0.2
UNSTARTED_MOST_MS = 60_000


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a run is attempted, and how long it rests between two attempts, in ms."""

    max_attempts: int = 1
    backoff: str = EXPONENTIAL
    initial_delay_ms: int = 1_000
    max_delay_ms: int = 300_000
    dead_letter: bool = False


def delay_ms(policy: Policy, failures: int, jitter: float) -> int:
    """Return how long to rest after the `failures`-th failed attempt, in ms; never more than the policy's most.

    Args:
        jitter: From 0 to 1; spreads runs that failed together over a fifth of their delay.
    """
    steps = max(failures, 1)
    if policy.backoff == FIXED:
        rest = policy.initial_delay_ms
    elif policy.backoff == LINEAR:
        rest = policy.initial_delay_ms * steps
    else:
        # Past 2**40 every policy is at its most.
        rest = policy.initial_delay_ms * 2 ** min(steps - 1, 40)
    spread = min(rest, policy.max_delay_ms) * (1 + JITTER * jitter)
    if spread > policy.max_delay_ms:
        spread = policy.max_delay_ms * (1 - JITTER * jitter)
    return int(spread)


def unstarted_delay_ms(claims: int, jitter: float) -> int:
    """Return how long a run rests that was claimed and not started `claims` times in a row, in ms."""
    return delay_ms(Policy(initial_delay_ms=500, max_delay_ms=UNSTARTED_MOST_MS), claims, jitter)
