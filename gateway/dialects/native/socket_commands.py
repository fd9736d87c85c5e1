"""What clients send over a WebSocket: one command a frame, with the members of the HTTP body that does the same."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from gateway.dialects.native.context import Native, acting
from gateway.dialects.native.project import run_body, written_body
from gateway.dialects.native.wire import Act, Answer, Append, Cancel, Seq
from gateway.domain import access
from gateway.edge.auth import Credential
from gateway.edge.body import decode_json
from gateway.edge.ws import ID_CHARS, Envelope
from gateway.errors import InvalidBody
from gateway.service.actors import Caller, parse_run_id
from gateway.service.writing import Batch

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=ID_CHARS)] | None


class SubscribeCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="subscribe"):
    """Follow a run from `after` (a cursor), else `after_seq`, else its beginning, where `snapshot` sums up the past."""

    id: Id = None
    run_id: str
    after: str | None = None
    after_seq: Seq | None = None
    types: str | Annotated[list[str], Meta(min_length=1, max_length=200)] | None = None
    snapshot: bool = False


class UnsubscribeCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="unsubscribe"):
    """Follow a run no more."""

    id: Id = None
    run_id: str


class AppendCommand(Append, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="append"):
    """Append a batch; `lease` is what HTTP takes as a header."""

    id: Id = None
    run_id: str
    lease: str | None = None
    idempotency_key: str | None = None


class InputCommand(Answer, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="input"):
    """Answer a question."""

    id: Id = None
    run_id: str
    idempotency_key: str | None = None


class CancelCommand(Cancel, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cancel"):
    """Cancel a run."""

    id: Id = None
    run_id: str
    idempotency_key: str | None = None


class PauseCommand(Act, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pause"):
    """Pause a run."""

    id: Id = None
    run_id: str
    idempotency_key: str | None = None


class ResumeCommand(Act, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resume"):
    """Resume a paused run."""

    id: Id = None
    run_id: str
    idempotency_key: str | None = None


class AuthCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="auth"):
    """Go on under another ticket or key, one of the two."""

    id: Id = None
    ticket: str | None = None
    key: str | None = None

    @property
    def credential(self) -> Credential:
        """What is shown.

        Raises:
            InvalidBody: both, or none.
        """
        if self.ticket is not None and self.key is None:
            return Credential("ticket", self.ticket)
        if self.key is not None and self.ticket is None:
            return Credential("key", self.key)
        raise InvalidBody("Give a ticket or a key, one of the two.", path="$.ticket")


class PingCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ping"):
    """Ask for a `pong`."""

    id: Id = None


ActionCommand = AppendCommand | InputCommand | CancelCommand | PauseCommand | ResumeCommand
Command = SubscribeCommand | UnsubscribeCommand | ActionCommand | AuthCommand | PingCommand

KINDS: dict[str, type[Command]] = {
    "subscribe": SubscribeCommand,
    "unsubscribe": UnsubscribeCommand,
    "append": AppendCommand,
    "input": InputCommand,
    "cancel": CancelCommand,
    "pause": PauseCommand,
    "resume": ResumeCommand,
    "auth": AuthCommand,
    "ping": PingCommand,
}


def read_command(raw: bytes, envelope: Envelope) -> Command:
    """Return the command in a frame.

    Raises:
        InvalidBody: an unknown type, or not what that type takes; `facts["path"]` says where.
    """
    kind = KINDS.get(envelope.type) if isinstance(envelope.type, str) else None
    if kind is None:
        allowed = list(KINDS)
        raise InvalidBody("type is one of " + ", ".join(allowed) + ".", path="$.type", allowed=allowed)
    return decode_json(raw, kind)


def scope_of(command: ActionCommand) -> str:
    """Return the scope that an action needs."""
    if isinstance(command, AppendCommand) and command.lease is not None:
        return access.WORK
    return access.RUNS_INPUT if isinstance(command, InputCommand) else access.RUNS_WRITE


async def act(native: Native, caller: Caller, command: ActionCommand) -> object:
    """Do what a command says and return what the HTTP request that does the same is answered."""
    run_id, control = parse_run_id(command.run_id), native.control
    if not isinstance(command, AppendCommand):
        caller = acting(caller, command.triggered_by)
    match command:
        case AppendCommand():
            return written_body(await native.writing.append(caller, run_id, _batch(command)))
        case InputCommand():
            done = await control.answer(caller, run_id, request_id=command.request_id, content=command.content)
            return {"ok": True, "request_id": done.request_id, "seq": done.seq}
        case CancelCommand():
            return run_body(await control.cancel(caller, run_id, reason=command.reason, force=command.force))
        case PauseCommand():
            return run_body(await control.pause(caller, run_id, reason=command.reason))
        case ResumeCommand():
            return run_body(await control.resume(caller, run_id, reason=command.reason))


def _batch(command: AppendCommand) -> Batch:
    return Batch(
        events=[event.new_event() for event in command.events],
        writer=command.writer,
        number=command.writer_seq,
        expected_seq=command.expected_seq,
        attempt=command.attempt,
        lease=command.lease,
    )
