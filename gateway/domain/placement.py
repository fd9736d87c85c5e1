"""Where a run stands in its queue: waiting in it, held by a worker, or not in it at all."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

from gateway.domain.lifecycle import Status
from gateway.domain.run import Run, RunSpec

PRIORITY_MOST = 1_000


class Standing(StrEnum):
    """What a queue has to do with a run."""

    QUEUE = "queue"
    HOLD = "hold"
    LEAVE = "leave"


def standing(run: Run) -> Standing:
    """Return whether the run waits to be claimed, is leased and takes up room, or neither."""
    if run.state.status is Status.QUEUED:
        return Standing.QUEUE
    return Standing.HOLD if run.state.leased else Standing.LEAVE


def order(run: Run) -> str:
    """Return text that sorts before that of every run to be claimed later: by priority, then by place."""
    created_us, place_ms = run.spec.created_us, run.state.place_ms or 0
    queued_us = created_us if place_ms <= created_us // 1000 else place_ms * 1000
    return f"{PRIORITY_MOST - run.spec.priority:04}{queued_us:016}{run.id}"


def agent_limit(agent_id: str) -> str:
    """Return the name of the limit that all runs of an agent share."""
    return f"a:{agent_id}"


def lane(spec: RunSpec) -> str:
    """Return what the run shares with all that are subject to the same limits, its agent's and its key's."""
    key = spec.concurrency_key
    shared = "-" if key is None else "k:" + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{agent_limit(spec.agent_id)} {shared}"
