"""The runs that one WebSocket follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gateway import telemetry
from gateway.dialects.native.context import Native
from gateway.dialects.native.encoders import RunSocket, opened, snapshot_frames
from gateway.dialects.native.socket_commands import SubscribeCommand
from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.cursor import START, Cursor, parse
from gateway.domain.events import TypeFilter
from gateway.edge.frames import Message
from gateway.entry.streaming import Lane, open_reader
from gateway.errors import GatewayError, NotFound, TooManySubscriptions
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Reader
from gateway.service.actors import is_bounded, parse_run_id
from gateway.service.streams import Start


class Subscription(msgspec.Struct, frozen=True):
    """A run that is about to be followed."""

    run_id: str
    lane: Lane


class Subscriptions:
    """A reader for each run that the socket follows; at most one a run."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._readers: dict[str, Reader] = {}

    async def open(self, grant: Grant, command: SubscribeCommand) -> Subscription:
        """Return what `start` takes, soon, and without waiting for anything else first.

        Raises:
            TooManySubscriptions: as many runs as may be are followed.
            NotFound, LogExpired: no such run for this caller; its log has been removed.
            BadRequest: a malformed cursor or filter.
            StoreUnavailable: try again; nothing is held.
        """
        run_id = parse_run_id(command.run_id)
        most = self._native.bounds.socket_runs
        if run_id not in self._readers and len(self._readers) >= most:
            telemetry.REFUSED.labels("socket_runs").inc()
            raise TooManySubscriptions(f"A WebSocket follows at most {most} runs; use another.", limit_runs=most)
        start, types = Start(_cursor(command)), _types(command)
        encoder = RunSocket(run_id, types)
        preface: Sequence[Message] = ()
        if command.snapshot and start.cursor.seq == 0:
            taken = await self._native.folds.snapshot(grant, run_id)
            preface, start = snapshot_frames(encoder, taken), Start(taken.as_of)
        opening = await self._native.streams.open_run(grant, run_id, start, types)
        return Subscription(run_id, Lane(opening, encoder, [*opened(encoder, opening), *preface]))

    def start(self, outlet: Outlet, subscription: Subscription) -> None:
        """Send the run's events from here on, instead of those that an earlier subscription would."""
        self.stop(outlet, subscription.run_id)
        reader = open_reader(outlet, subscription.lane)
        self._readers[subscription.run_id] = reader
        outlet.add(reader)

    def stop(self, outlet: Outlet, run_id: str) -> str | None:
        """Send nothing more of a run; return the cursor of what was sent, None if it was not followed."""
        reader = self._readers.get(run_id)
        if reader is None:
            return None
        outlet.remove(reader)
        self.forget(reader)
        return _place(reader)

    def forget(self, reader: Reader) -> None:
        """Note that a reader has left."""
        for run_id, known in list(self._readers.items()):
            if known is reader:
                del self._readers[run_id]
                self._native.hub.release(reader.channel)

    def release(self) -> None:
        """Follow nothing more: the connection is gone."""
        for reader in list(self._readers.values()):
            self.forget(reader)

    async def beyond(self, grant: Grant) -> list[str]:
        """Return the runs that are followed and that `grant` does not let its holder read."""
        try:
            access.require(grant, access.RUNS_READ)
        except GatewayError:
            return list(self._readers)
        if not is_bounded(grant):
            return []
        return [run_id for run_id in list(self._readers) if not await self._reaches(grant, run_id)]

    async def _reaches(self, grant: Grant, run_id: str) -> bool:
        try:
            await self._native.runs.get(grant, run_id)
        except NotFound:
            return False
        return True

    def farewell(self, reason: str, run_ids: Iterable[str] | None = None) -> list[Message]:
        """Return the frames that say where each of these runs (None: each that is followed) is to be resumed."""
        return [
            message
            for run_id, reader in self._readers.items()
            if run_ids is None or run_id in run_ids
            for message in reader.encoder.control("stream.closed", {"reason": reason, "resume_after": _place(reader)})
        ]


def _place(reader: Reader) -> str:
    return Cursor(reader.seq, reader.tag).text


def _cursor(command: SubscribeCommand) -> Cursor:
    if command.after is not None:
        return parse(command.after)
    return START if command.after_seq is None else Cursor(command.after_seq)


def _types(command: SubscribeCommand) -> TypeFilter | None:
    if command.types is None:
        return None
    return TypeFilter.parse(command.types if isinstance(command.types, str) else ",".join(command.types))
