"""`/v1/ws`: one client, its commands in order with an answer each, and the runs it follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway.dialects.native.context import Native
from gateway.dialects.native.grouped import append_group, read_group
from gateway.dialects.native.project import at
from gateway.dialects.native.socket_commands import (
    AppendCommand,
    AuthCommand,
    Command,
    PingCommand,
    SubscribeCommand,
    UnsubscribeCommand,
    act,
    read_command,
    scope_of,
)
from gateway.dialects.native.subscriptions import Subscription, Subscriptions
from gateway.domain import access
from gateway.domain.access import Grant
from gateway.edge import query as q
from gateway.edge.auth import Credential, require_credential
from gateway.edge.frames import Message
from gateway.edge.limits import Visit
from gateway.edge.problems import describe_status, request_id_of, respond
from gateway.edge.ws import Connection, NotAFrame, error_frame, json_frame, read_envelope
from gateway.edge.ws_server import CloseCode
from gateway.errors import (
    Draining,
    Forbidden,
    GatewayError,
    ProviderUnavailable,
    StoreUnavailable,
    TooLarge,
    TooManyStreams,
    Unauthenticated,
)
from gateway.service.actors import Caller, check_idempotency_key, parse_run_id

logger = logging.getLogger(__name__)

UNREAD_S: Final = 60.0
"""How long a client may leave its answers unread while it sends commands."""

AROUND_BYTES: Final = 4_096
"""What a command may have around the body that HTTP takes."""

GROUP_FRAMES: Final = 1_000
"""Frames that are looked at together: those that came while the ones before were answered."""

CLOSE_CODES: Final = {
    "drain": CloseCode.RESTARTING,
    "ticket_expired": CloseCode.UNAUTHENTICATED,
    "token_expired": CloseCode.UNAUTHENTICATED,
    "key_revoked": CloseCode.UNAUTHENTICATED,
    "key_expired": CloseCode.UNAUTHENTICATED,
}


class SocketRoutes:
    """The WebSocket."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [WebSocketRoute("/v1/ws", self.serve), Route("/v1/ws", self.explain, methods=["GET"])]

    async def explain(self, request: Request) -> Response:
        """`GET /v1/ws` by a client that does not ask for a WebSocket."""
        detail = "This is a WebSocket; connect with ws:// or wss://."
        problem = describe_status(426, "upgrade_required", detail, request_id_of(request.scope))
        return respond(problem, {"Upgrade": "websocket"})

    async def serve(self, websocket: WebSocket) -> None:
        """`/v1/ws`: who cannot be known is accepted and closed with 4401, since a browser sees no other answer."""
        connection = Connection(websocket)
        try:
            credential = _read_credential(connection)
        except Unauthenticated as error:
            await connection.accept()
            connection.close(CloseCode.UNAUTHENTICATED, error.facts["reason"])
        except GatewayError as error:
            await connection.deny(error)
        else:
            await connection.accept()
            await self._admit(connection, credential)

    async def _admit(self, connection: Connection, credential: Credential) -> None:
        """Serve whoever the credential stands for; while the store is away they wait, as for a stream."""
        native, callers = self._native, self._native.callers

        async def show() -> Grant:
            grant = await callers.grant(credential, connection.scope)
            await callers.spend(grant, connection.scope)
            return grant

        try:
            grant = await native.door.wait_store(show, native.door.deadline_s())
            await native.door.places.enter(grant)
        except Unauthenticated as error:
            connection.close(CloseCode.UNAUTHENTICATED, error.facts["reason"])
        except Draining:
            connection.close(CloseCode.RESTARTING, "drain")
        except (StoreUnavailable, ProviderUnavailable, TooManyStreams) as error:
            connection.close(CloseCode.TRY_AGAIN, error.code)
        else:
            try:
                await Socket(native, connection, grant).run()
            finally:
                native.door.places.leave(grant)


def _read_credential(connection: Connection) -> Credential:
    connection.check_subprotocol()
    query = q.parse_query(connection.scope["query_string"])
    q.refuse_unknown(query, ("ticket",))
    return require_credential(connection.scope["headers"], query, tickets=True)


def _ack_frame(answer_id: str, result: object) -> Message:
    return json_frame({"type": "ack", "id": answer_id, "result": result})


class Socket:
    """One open WebSocket.

    A command is begun when the one before it was answered and the client has room for the answer. While the store
    is away, subscriptions stay and catch up later, and commands are refused with the problem that HTTP would give;
    only a `subscribe` is held, for a client that has just connected has nothing better to do than wait.
    """

    def __init__(self, native: Native, connection: Connection, grant: Grant) -> None:
        self._native = native
        self._connection = connection
        self._subscriptions = Subscriptions(native)
        self._close_code, self._close_reason = CloseCode.FAILED, ""
        self._held_until_s: float | None = None
        self._visit = Visit(native.limits)
        self._command_bytes = 0
        self._outlet = native.hub.open_outlet(
            connection.send,
            write=connection.write,
            hang_up=self._hang_up,
            unsent=connection.unsent,
            peer=connection.peer,
            transport="ws",
            farewell=self._farewell,
            on_leave=self._subscriptions.forget,
            grant=grant,
        )

    async def run(self) -> None:
        """Answer commands until the connection is gone."""
        outlet, connection = self._outlet, self._connection
        try:
            if self._native.door.draining:
                outlet.close(outlet.farewell("drain"), hang_up=True)
            while (raw := await connection.receive()) is not None and not outlet.closed:
                frames = [raw, *connection.take_waiting(GROUP_FRAMES)]
                while frames and not outlet.closed:
                    del frames[: await self._answer_some(frames)]
                    async with asyncio.timeout(UNREAD_S):
                        await outlet.drained()
                    # Commands that need no store would keep the loop from everybody else.
                    await asyncio.sleep(0)
        except NotAFrame as error:
            connection.close(CloseCode.NOT_A_FRAME, str(error))
        except TimeoutError:
            connection.close(CloseCode.SILENT, "answers left unread")
        finally:
            self._native.hub.close_outlet(outlet)
            self._subscriptions.release()

    def _farewell(self, reason: str) -> Sequence[Message]:
        self._close_code, self._close_reason = CLOSE_CODES.get(reason, CloseCode.FAILED), reason
        return self._subscriptions.farewell(reason)

    def _hang_up(self) -> None:
        self._connection.close(self._close_code, self._close_reason)

    async def _answer_some(self, frames: Sequence[bytes]) -> int:
        """Do what the first frame says, or the first ones together; return how many are done."""
        # No more than would be let pass one by one: the others are refused one by one.
        frames = frames[: self._room()] if len(frames) > 1 else frames
        if len(frames) > 1:
            bounds = self._native.bounds
            group = read_group(frames, most_events=bounds.batch_events, most_bytes=bounds.batch_bytes)
            if len(group) > 1 and await self._append_together(group, [len(frame) for frame in frames]):
                return len(group)
        await self._answer(frames[0])
        return 1

    async def _append_together(self, group: Sequence[AppendCommand], sizes: Sequence[int]) -> bool:
        """Append a group; False when that is refused, for each of its commands is then to be told for itself."""
        self._visit, self._command_bytes = Visit(self._native.limits), sizes[0]
        try:
            caller = await self._caller(scope_of(group[0]))
            results = await append_group(self._native, caller, group)
            self._owe(len(group) - 1, sum(sizes[1 : len(group)]))
        except StoreUnavailable as error:
            # Perhaps it was stored: none of it may be sent to the store again.
            self._outlet.say([error_frame(each.id, error, self._connection.request_id) for each in group])
        except GatewayError:
            return False
        else:
            answers = zip([each.id for each in group], results, strict=True)
            self._outlet.say([_ack_frame(name, result) for name, result in answers if name is not None])
        finally:
            self._visit.end()
        return True

    async def _answer(self, raw: bytes) -> None:
        """Do what a frame says; whatever is wrong with it is told, and the socket goes on."""
        answer_id = None
        self._visit, self._command_bytes = Visit(self._native.limits), len(raw)
        try:
            envelope = read_envelope(raw)
            answer_id = envelope.answer_id
            self._check_size(raw)
            await self._obey(read_command(raw, envelope))
        except NotAFrame:
            raise
        except Draining:
            # Its turn comes early: elsewhere it is served, here it would only be told that it is not.
            self._outlet.dismiss("drain")
        except GatewayError as error:
            self._refuse(answer_id, error)
        except Exception as error:
            logger.exception("command failed")
            self._refuse(answer_id, error)
        finally:
            self._visit.end()

    def _check_size(self, raw: bytes) -> None:
        most = self._native.bounds.batch_bytes
        if len(raw) > most + AROUND_BYTES:
            raise TooLarge(f"The command is over {most:,} bytes.", limit_bytes=most)

    async def _obey(self, command: Command) -> None:
        match command:
            case SubscribeCommand():
                await self._subscribe(command)
            case UnsubscribeCommand():
                run_id = parse_run_id(command.run_id)
                place = self._subscriptions.stop(self._outlet, run_id)
                self._acknowledge(command.id, {"run_id": run_id, "resume_after": place})
            case AuthCommand():
                await self._renew(command)
            case PingCommand():
                self._outlet.say([json_frame({"type": "pong", "id": command.id})])
            case _:
                caller = await self._caller(scope_of(command), command.idempotency_key)
                self._acknowledge(command.id, await act(self._native, caller, command))

    def _acknowledge(self, answer_id: str | None, result: object) -> None:
        if answer_id is not None:
            self._outlet.say([_ack_frame(answer_id, result)])

    def _refuse(self, answer_id: str | None, error: Exception) -> None:
        self._outlet.say([error_frame(answer_id, error, self._connection.request_id)])

    def _room(self) -> int:
        """Return how many commands would be let pass now; one at least, to be told that it is not."""
        grant: Grant = self._outlet.grant
        operator = access.ADMIN in grant.scopes
        return max(1, self._native.limits.room(grant.tenant, grant.key_id, operator=operator))

    def _owe(self, commands: int, size: int) -> None:
        """Count what was done beside a command that was admitted."""
        grant: Grant = self._outlet.grant
        operator = access.ADMIN in grant.scopes
        self._native.limits.owe(grant.tenant, grant.key_id, size, operator=operator, requests=commands)

    async def _caller(self, scope: str, idempotency_key: str | None = None) -> Caller:
        """Return who commands, if they may at this moment; a command is limited as a request is."""
        grant: Grant = self._outlet.grant
        operator = access.ADMIN in grant.scopes
        await self._visit.admit(grant.tenant, grant.key_id, self._command_bytes, operator=operator)
        await self._native.access.admit(grant, now_ms=self._native.clock.now_ms())
        access.require(grant, scope)
        return Caller(grant, idempotency_key=check_idempotency_key(idempotency_key))

    async def _subscribe(self, command: SubscribeCommand) -> None:
        """Follow a run; one that is followed already goes on from where this says instead."""

        async def open_run() -> Subscription:
            caller = await self._caller(access.RUNS_READ)
            return await self._subscriptions.open(caller.grant, command)

        subscription = await self._hold(open_run)
        self._acknowledge(command.id, {"run_id": subscription.run_id})
        self._subscriptions.start(self._outlet, subscription)

    async def _hold(self, call: Callable[[], Awaitable[Subscription]]) -> Subscription:
        """Wait for the store, all held commands of one outage together no longer than a stream request would."""
        door, away = self._native.door, False
        if self._held_until_s is None:
            self._held_until_s = door.deadline_s()
        try:
            return await door.wait_store(call, self._held_until_s)
        except StoreUnavailable:
            away = True
            raise
        finally:
            if not away:
                self._held_until_s = None

    async def _renew(self, command: AuthCommand) -> None:
        """Go on under another grant of the same tenant; runs that it does not reach are followed no more."""
        callers, scope = self._native.callers, self._connection.scope
        grant = await callers.grant(command.credential, scope)
        if grant.tenant != self._outlet.grant.tenant:
            raise Forbidden("This WebSocket belongs to another tenant; open one of your own.")
        await callers.spend(grant, scope)
        lost = await self._subscriptions.beyond(grant)
        self._outlet.grant = grant
        self._acknowledge(command.id, {"expires_at": at(grant.expires_ms)})
        self._outlet.say(self._subscriptions.farewell("out_of_reach", lost))
        for run_id in lost:
            self._subscriptions.stop(self._outlet, run_id)
