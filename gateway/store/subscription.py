"""The pub/sub connection: one task owns it, subscribing is confirmed, and it finds its way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from gateway.errors import StoreUnavailable
from gateway.store.link import BACKOFF_S
from gateway.store.sentinel import open_store
from gateway.store.wire import ProtocolBroken, Wire, pack

logger = logging.getLogger(__name__)

Handler = Callable[[bytes], None]


class Displaced(Exception):
    """A channel's slot has moved to another node of the cluster: subscribe there."""


class Subscription:
    """Channels of this process on one connection.

    They are sharded channels: a server that is no cluster serves them as others.
    After a lost connection every channel is subscribed again; once the server confirmed all of them, `on_restored`
    is called, since what was published meanwhile is lost.

    Args:
        on_displaced: Called with channels that this node of a cluster serves no more, and with its refusal if it
            refused them; they are forgotten here. Without it, a refusal ends the connection.
        on_lost: Called when a connection is lost.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        timeout_s: float,
        on_restored: Callable[[], None],
        on_displaced: Callable[[Sequence[str], ResponseError | None], None] | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._on_restored = on_restored
        self._on_displaced = on_displaced
        self._on_lost = on_lost
        self._handlers: dict[bytes, Handler] = {}
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}
        self._connection: Wire | None = None
        self._unconfirmed: set[bytes] = set()
        self._restoring = False
        self.restores = 0

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Call `handler` with each message of `channel` from now on; returns once the server confirmed.

        Raises:
            StoreUnavailable: no confirmation in time; the channel stays wanted.
            Displaced: another node of the cluster has it; it is forgotten here.
        """
        name = channel.encode()
        self._handlers[name] = handler
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(confirmed)
        if self._connection is not None:
            self._connection.send(pack(("SSUBSCRIBE", name)))
        try:
            async with asyncio.timeout(self._timeout_s):
                await confirmed
        except TimeoutError:
            raise StoreUnavailable("The store did not confirm a subscription.", outcome="not_written") from None
        finally:
            self._forget_waiting(name, confirmed)

    def _forget_waiting(self, name: bytes, confirmed: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(name, [])
        if confirmed in waiting:
            waiting.remove(confirmed)
        if not waiting:
            self._waiting.pop(name, None)

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to `channel`."""
        name = channel.encode()
        self._handlers.pop(name, None)
        self._unconfirmed.discard(name)
        if self._connection is not None:
            self._connection.send(pack(("SUNSUBSCRIBE", name)))
            self._check_restored()

    def release(self, channel: str) -> None:
        """Hear a channel no more that another node has; who waits for its confirmation here is `Displaced`."""
        self.unsubscribe(channel)
        self._send_away(channel.encode())

    def adopt(self, channel: str, handler: Handler) -> None:
        """Hear a channel that was heard elsewhere; `on_restored` is called once the server confirmed."""
        name = channel.encode()
        self._handlers[name] = handler
        self._unconfirmed.add(name)
        self._restoring = True
        if self._connection is not None:
            self._connection.send(pack(("SSUBSCRIBE", name)))

    def probes(self, channel: str) -> list[str]:
        """Return the channels, named after `channel`, that prove together that notifications arrive."""
        return [channel]

    async def reset(self, _channel: str = "") -> None:
        """Drop the connection; it is made again. For a connection that has gone deaf."""
        if self._connection is not None:
            self._connection.close()

    async def run(self) -> None:
        """Own the connection; for ever."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await open_store(self._url, self._name)
                failures = 0
                await self._serve(connection)
            except (ResponseError, OSError, TimeoutError) as error:
                logger.debug("store subscription: %s", error)
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    async def _serve(self, connection: Wire) -> None:
        connection.take = self._take
        self._connection = connection
        try:
            self._unconfirmed = set(self._handlers)
            self._restoring = True
            for name in self._handlers:
                connection.send(pack(("SSUBSCRIBE", name)))
            self._check_restored()
            await connection.lost
        finally:
            self._connection = None
            connection.close()
            self._on_lost()

    def _take(self, message: Any) -> None:
        if isinstance(message, ResponseError):
            self._take_refusal(message)
            return
        kind, channel, payload = message
        if kind == b"smessage":
            handler = self._handlers.get(channel)
            if handler is not None:
                try:
                    handler(payload)
                except Exception:
                    # It would end the connection of all others.
                    logger.exception("a notification on %s could not be handled", channel.decode())
        elif kind == b"ssubscribe":
            self._confirm(channel)
        elif kind == b"sunsubscribe" and channel in self._handlers:
            self._displace([channel], None)

    def _take_refusal(self, refusal: ResponseError) -> None:
        if self._on_displaced is None:
            raise ProtocolBroken(str(refusal))
        # It does not say which channel it refuses; to subscribe twice does no harm.
        self._displace([*(self._unconfirmed | self._waiting.keys())], refusal)

    def _displace(self, names: Sequence[bytes], refusal: ResponseError | None) -> None:
        if self._on_displaced is None:
            return
        for name in names:
            self._handlers.pop(name, None)
            self._unconfirmed.discard(name)
            self._send_away(name)
        self._on_displaced([name.decode() for name in names], refusal)

    def _send_away(self, name: bytes) -> None:
        for waiting in self._waiting.pop(name, []):
            if not waiting.done():
                waiting.set_exception(Displaced())

    def _confirm(self, channel: bytes) -> None:
        for waiting in self._waiting.pop(channel, []):
            if not waiting.done():
                waiting.set_result(None)
        self._unconfirmed.discard(channel)
        self._check_restored()

    def _check_restored(self) -> None:
        if self._restoring and not self._unconfirmed:
            self._restoring = False
            self.restores += 1
            self._on_restored()
