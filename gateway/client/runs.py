"""Runs: create, find, read, write, steer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Unpack
from urllib.parse import quote

import msgspec

from gateway.client.fields import NewRun, RunFields, RunFilters, Why
from gateway.client.files import Source, send_file
from gateway.client.models import (
    Answered,
    Appended,
    Batch,
    Event,
    File,
    Gap,
    Made,
    Pending,
    Reset,
    Run,
    StreamItem,
)
from gateway.client.position import Position
from gateway.client.problems import read_problem
from gateway.client.reader import read_stream
from gateway.client.transport import Transport
from gateway.client.writer import Writer, open_writer

PATIENCE_S = 300.0
WAIT_STEP_S = 20.0
"""One long poll; shorter than the time after which an unanswered call counts as lost."""


class _RunPage(msgspec.Struct):
    data: list[Run]
    next_cursor: str | None = None


class _MadeRun(msgspec.Struct):
    run: Run | None
    error: dict[str, Any] | None

    def made(self) -> Made:
        return Made(run=self.run, error=None if self.error is None else read_problem(self.error))


class _BatchDone(msgspec.Struct):
    batch_id: str
    results: list[_MadeRun]


class _EventPage(msgspec.Struct):
    data: list[Event]
    next_after: str | None = None
    has_more: bool = False
    gap: dict[str, Any] | None = None
    reset: dict[str, Any] | None = None


class Runs:
    """The runs of a tenant. Every call raises `ApiError` and `ConnectionLost` as its errors say."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, agent_id: str, *, idempotency_key: str | None = None, **fields: Unpack[RunFields]) -> Run:
        """Create a run, `direct` unless `mode` says otherwise: the caller appends its events.

        The same `idempotency_key` with the same fields returns the same run, for a day.
        """
        body = {"mode": "direct", **_given(fields), "agent_id": agent_id}
        return await self._transport.call("POST", "/v1/runs", Run, body=body, idempotency_key=idempotency_key)

    async def create_batch(
        self, runs: Sequence[NewRun], *, batch_id: str | None = None, idempotency_key: str | None = None
    ) -> Batch:
        """Create up to 1,000 runs by one call, in this order; what is wrong with one does not stop the others.

            batch = await client.runs.create_batch([{"agent_id": "importer", "mode": "queued", "input": n} for n in x])
            async for run in client.runs.list(batch_id=batch.id): ...

        Each is `direct` unless its `mode` says otherwise.
        The same `idempotency_key` with the same runs creates those that are not there yet and returns all, for a day.

        Args:
            batch_id: what they are found by; made up where none is given.
        """
        items = [{"mode": "direct", **_given(run)} for run in runs]
        body = {"runs": items, **_given({"batch_id": batch_id})}
        told = await self._transport.call(
            "POST", "/v1/runs/batch", _BatchDone, body=body, idempotency_key=idempotency_key
        )
        return Batch(id=told.batch_id, results=[result.made() for result in told.results])

    async def get(self, run_id: str) -> Run:
        """Return the run's record as it is now."""
        return await self._transport.call("GET", _path(run_id), Run)

    async def list(self, *, page_runs: int = 50, **filters: Unpack[RunFilters]) -> AsyncGenerator[Run, None]:
        """Yield runs, newest first, fetching `page_runs` (at most 100) at a time."""
        params = {**_given(filters), "limit": page_runs}
        if "payload" in params:
            params["payload"] = msgspec.json.encode(params["payload"]).decode()
        while True:
            page = await self._transport.call("GET", "/v1/runs", _RunPage, params=params)
            for run in page.data:
                yield run
            if not page.next_cursor:
                return
            params["cursor"] = page.next_cursor

    async def wait(
        self,
        run_id: str,
        *,
        until: Literal["ended", "waiting"] = "ended",
        timeout_s: float | None = None,
    ) -> Run:
        """Return the run once it has ended (or, with `until="waiting"`, asks a question).

        After `timeout_s` seconds, if given, it is returned as it then is: look at its status.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left_s = WAIT_STEP_S if deadline is None else min(WAIT_STEP_S, deadline - loop.time())
            params = {"until": until, "timeout_s": f"{max(0.0, left_s):.3f}"}
            run = await self._transport.call("GET", _path(run_id, "wait"), Run, params=params)
            reached = run.ended or (until == "waiting" and run.status == "waiting_for_input")
            if reached or (deadline is not None and loop.time() >= deadline):
                return run

    def events(
        self,
        run_id: str,
        *,
        after: str | int | None = None,
        types: Iterable[str] | None = None,
        snapshot: bool = False,
        patience_s: float | None = PATIENCE_S,
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield the run's events in order, each once, live, until the run has ended and all are read.

        Lost connections are opened again where they broke; that the log itself lost something is
        yielded, as `Gap` or `Reset`.
        Leave the loop early only inside `contextlib.aclosing(…)`, which closes the connection.

        Args:
            after: start after this event: its `cursor` (verified against the log) or its seq.
            types: only events of these types.
            snapshot: first yield a `Snapshot` of the run so far instead of its events.
            patience_s: how long the gateway may be away, in seconds; None waits for ever.

        Raises:
            Unauthenticated, Forbidden, NotFound, LogExpired: as it opens, or later.
            ConnectionLost, ProtocolError: the gateway is away for too long, or is none.
        """
        place = Position(after, dense=types is None, snapshot=snapshot)
        params = {} if types is None else {"types": ",".join(types)}
        return read_stream(self._transport, _path(run_id, "stream"), place, params=params, patience_s=patience_s)

    async def log(
        self, run_id: str, *, after: str | int | None = None, types: Iterable[str] | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield the run's events up to its present head, page by page, and stop there."""
        params: dict[str, Any] = {"limit": 1000, **({} if types is None else {"types": ",".join(types)})}
        while True:
            if after is not None:
                params["after"] = str(after)
            page = await self._transport.call("GET", _path(run_id, "events"), _EventPage, params=params)
            if page.reset is not None:
                yield msgspec.convert({"type": "stream.reset", "run_id": run_id, **page.reset}, Reset)
            if page.gap is not None:
                yield msgspec.convert({"type": "stream.gap", "run_id": run_id, **page.gap}, Gap)
            for event in page.data:
                verified = page.next_after is not None and page.next_after.startswith(f"{event.seq}-")
                yield msgspec.structs.replace(event, cursor=page.next_after if verified else str(event.seq))
            if not page.has_more or page.next_after is None:
                return
            after = page.next_after

    async def append(
        self,
        run_id: str,
        events: Sequence[Mapping[str, Any]],
        *,
        expected_seq: int | None = None,
        lease: str | None = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> Appended:
        """Append events `{"type", "data", "step_id"?}` in one piece; an empty list is a heartbeat.

        Args:
            expected_seq: the log's head must still be there.
            lease: the token of the claim, where the run was claimed.
            attempt: the run must still be in this one.
        """
        body = {"events": list(events), **_given({"expected_seq": expected_seq, "attempt": attempt})}
        return await self._transport.call(
            "POST", _path(run_id, "events"), Appended, body=body, idempotency_key=idempotency_key, lease=lease
        )

    async def upload(
        self,
        run_id: str,
        source: Source,
        *,
        name: str | None = None,
        content_type: str | None = None,
        lease: str | None = None,
        attempt: int | None = None,
        step_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> File:
        """Send a file that the run made, and announce it in its log; otherwise as `client.files.upload`.

        Args:
            lease: of the claim, where the run has one.
            attempt: refused once this attempt is over.
        """
        return await send_file(
            self._transport,
            _path(run_id, "files"),
            source,
            name=name,
            content_type=content_type,
            params=_given({"attempt": attempt, "step_id": step_id}),
            headers=_given({"Lease": lease}),
            idempotency_key=idempotency_key,
        )

    def writer(
        self,
        run_id: str,
        *,
        on_pending: Callable[[Pending], None] | None = None,
        heartbeat_s: float | None = None,
        repeat_s: float | None = PATIENCE_S,
        queue_events: int = 10_000,
        queue_bytes: int = 8 * 1024 * 1024,
        lease: str | None = None,
        attempt: int | None = None,
    ) -> AbstractAsyncContextManager[Writer]:
        """Open a writer that batches by itself: `async with client.runs.writer(run_id) as writer:`.

        Args:
            on_pending: called once for each cancel, pause or input that an append's reply names.
            heartbeat_s: after so many idle seconds an empty append says that the writer lives.
            repeat_s: how long one batch is repeated while the gateway is away; None for ever.
            queue_events, queue_bytes: beyond these `append` waits.
            lease: the token of the claim, where the run was claimed.
            attempt: the one to write for; else that of the first append.
        """
        writer = Writer(
            self._transport,
            quote(run_id, safe=""),
            on_pending=on_pending,
            heartbeat_s=heartbeat_s,
            repeat_s=repeat_s,
            queue_events=queue_events,
            queue_bytes=queue_bytes,
            lease=lease,
            attempt=attempt,
        )
        return open_writer(writer)

    async def cancel(self, run_id: str, *, force: bool = False, **why: Unpack[Why]) -> Run:
        """Ask a held run to stop; `force` does not wait for it to confirm."""
        return await self._act(run_id, "cancel", {**why, **({"force": True} if force else {})})

    async def pause(self, run_id: str, **why: Unpack[Why]) -> Run:
        """Ask a run to stand still until it is resumed."""
        return await self._act(run_id, "pause", why)

    async def resume(self, run_id: str, **why: Unpack[Why]) -> Run:
        """Let a paused run go on."""
        return await self._act(run_id, "resume", why)

    async def retry(self, run_id: str, **why: Unpack[Why]) -> Run:
        """Create a new run with the inputs of one that ended badly, and return it."""
        return await self._act(run_id, "retry", why)

    async def replay(self, run_id: str, **why: Unpack[Why]) -> Run:
        """Create a new run with the inputs of any ended one, and return it."""
        return await self._act(run_id, "replay", why)

    async def restart(
        self, run_id: str, *, from_checkpoint: bool | int = False, preset: str | None = None, **why: Unpack[Why]
    ) -> Run:
        """Begin the next attempt of this same run.

        Args:
            from_checkpoint: True to go on from the last one, or the seq of one; else it begins at the beginning.
            preset: what it is executed with from now on.
        """
        return await self._act(run_id, "restart", {**why, **_renewal(from_checkpoint, preset)})

    async def dlq_replay(
        self, run_id: str, *, from_checkpoint: bool | int = False, preset: str | None = None, **why: Unpack[Why]
    ) -> Run:
        """Queue a run from the dead letters again, as its first attempt."""
        return await self._act(run_id, "dlq-replay", {**why, **_renewal(from_checkpoint, preset)})

    async def reschedule(self, run_id: str, scheduled_at: str, *, triggered_by: str | None = None) -> Run:
        """Move the start of a run that has not begun; `scheduled_at` is RFC 3339 text."""
        body = {"scheduled_at": scheduled_at, "triggered_by": triggered_by}
        return await self._act(run_id, "reschedule", body)

    async def input(
        self,
        run_id: str,
        content: Any,
        *,
        request_id: str | None = None,
        triggered_by: str | None = None,
        idempotency_key: str | None = None,
    ) -> Answered:
        """Answer the run's question; name it by `request_id` when several are open.

        Raises:
            AlreadyAnswered: another answer counted.
            InvalidState: the run asks nothing.
        """
        body = {"content": content, **_given({"request_id": request_id, "triggered_by": triggered_by})}
        return await self._transport.call(
            "POST", _path(run_id, "input"), Answered, body=body, idempotency_key=idempotency_key
        )

    async def _act(self, run_id: str, verb: str, body: Mapping[str, Any]) -> Run:
        return await self._transport.call("POST", _path(run_id, verb), Run, body=_given(body))


def _renewal(from_checkpoint: bool | int, preset: str | None) -> dict[str, Any]:
    return {"preset": preset} | ({"from_checkpoint": from_checkpoint} if from_checkpoint is not False else {})


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _path(run_id: str, *parts: str) -> str:
    return "/".join(["/v1/runs", quote(run_id, safe=""), *parts])
