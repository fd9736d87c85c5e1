"""Work for workers, and the registry of agents, as the API has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote

import msgspec

from gateway.client.models import AgentRecord, Beat, Claim, Run
from gateway.client.transport import Transport


class RetryFields(TypedDict, total=False):
    """How a failed attempt is tried again; durations in seconds."""

    max_attempts: int
    backoff: Literal["fixed", "linear", "exponential"]
    initial_delay_s: float
    max_delay_s: float


class AgentFields(TypedDict, total=False):
    """What all runs of an agent have in common; what is left out has its default. Durations in seconds."""

    runtime: Literal["workflow", "conversational"]
    queue: str
    retry: RetryFields
    run_timeout_s: float
    queue_expiry_s: float
    lease_s: float
    max_concurrent: int
    dead_letter: bool
    presets: Mapping[str, Any]
    title: str
    metadata: Mapping[str, Any]


class _AgentPage(msgspec.Struct):
    data: list[AgentRecord]
    next_cursor: str | None = None


class _Claims(msgspec.Struct):
    data: list[Claim]


class Agents:
    """The registered agents of a tenant."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def put(self, agent_id: str, **definition: Unpack[AgentFields]) -> AgentRecord:
        """Register an agent, or its next version; the same definition again changes nothing."""
        return await self._transport.call("PUT", _agent_path(agent_id), AgentRecord, body=definition)

    async def get(self, agent_id: str, *, version: int | None = None) -> AgentRecord:
        """Return an agent as it is, or as it was in a version; raises NotFound where it was never registered."""
        params = {} if version is None else {"version": version}
        return await self._transport.call("GET", _agent_path(agent_id), AgentRecord, params=params)

    async def list(self) -> AsyncGenerator[AgentRecord, None]:
        """Yield the registered agents, by id."""
        params: dict[str, str] = {}
        while True:
            page = await self._transport.call("GET", "/v1/agents", _AgentPage, params=params)
            for agent in page.data:
                yield agent
            if not page.next_cursor:
                return
            params["cursor"] = page.next_cursor


class Work:
    """Runs for whoever executes them. `gateway.client.worker` does all of this by itself."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def claim(
        self,
        queues: Sequence[str] = ("default",),
        *,
        max: int = 1,
        wait_s: float = 0.0,
        worker: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[Claim]:
        """Return up to `max` runs that are next, the first queue's first; waits up to `wait_s` for one.

        A repeat under the same key returns what the first was given, as far as it is still held.

        Args:
            worker: who claims, for people.
        """
        body = {"queues": list(queues), "max": max, "wait_s": wait_s, **({} if worker is None else {"worker": worker})}
        answer = await self._transport.call("POST", "/v1/claims", _Claims, body=body, idempotency_key=idempotency_key)
        return answer.data

    async def heartbeat(self, run_id: str, lease: str, *, attempt: int | None = None, start: bool = False) -> Beat:
        """Keep a lease up and learn what is pending; `start` also starts the attempt.

        Raises:
            Fenced: the lease is over.
            InvalidState: the run is.
        """
        body = {"lease": lease, **({"attempt": attempt} if attempt else {}), **({"start": True} if start else {})}
        return await self._transport.call("POST", _run_path(run_id, "heartbeat"), Beat, body=body)

    async def release(
        self,
        run_id: str,
        lease: str,
        *,
        attempt: int | None = None,
        reason: str | None = None,
        expected_seq: int | None = None,
    ) -> Run:
        """Give a run back: at a question it goes on after the answer, elsewhere the attempt is done again.

        Args:
            expected_seq: only while the log's head is there; else Conflict with the code `seq_conflict`.
        """
        fields = {"lease": lease, "attempt": attempt, "reason": reason, "expected_seq": expected_seq}
        body = {name: value for name, value in fields.items() if value is not None}
        return await self._transport.call("POST", _run_path(run_id, "release"), Run, body=body)


def _agent_path(agent_id: str) -> str:
    return f"/v1/agents/{quote(agent_id, safe='')}"


def _run_path(run_id: str, verb: str) -> str:
    return f"/v1/runs/{quote(run_id, safe='')}/{verb}"
