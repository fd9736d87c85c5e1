"""One process that serves the gateway's socket, from its first accept to the end of its drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import anyio
import uvicorn
from uvicorn.server import ServerState

from gateway import telemetry, tracing
from gateway.app import Gateway, build
from gateway.commands.acceptance import Acceptance, fit_files
from gateway.commands.listen import BACKLOG
from gateway.edge.server import INHERIT, HttpProtocol, tune_socket
from gateway.edge.ws_server import WebSocketProtocol
from gateway.settings import KIB, Settings

logger = logging.getLogger(__name__)

# Longer than the idle time after which usual balancers close: who closes first must not be us.
KEEP_ALIVE_S: Final = 75
FRAME_OVERHEAD_BYTES: Final = 64 * KIB
CLOSE_S: Final = 5.0
PONG_S: Final = 2.0
GC_THRESHOLDS: Final = (5_000, 5, 160)
"""Ten thousand streams at once are 200,000 new objects: looked at together they would stop the loop for 70 ms."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which closes the streams in their own way before it waits for the other requests.

    Args:
        health: Listens for whoever asks how it is, to the very end and however many connections there are.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        *,
        drain_s: float,
        connections: int,
        health: socket.socket | None = None,
    ) -> None:
        super().__init__(config)
        self.servers = []
        self.drain_s = drain_s
        self._gateway = gateway
        self._acceptance = Acceptance(self._make_protocol, most=connections)
        self._health = health

    def _make_protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(self.config, self.server_state, {}, tuned=INHERIT)
        return protocol

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and say how it is."""
        if self._health is not None:
            config = uvicorn.Config(self._gateway.health, lifespan="off", log_config=None, access_log=False)
            config.load()
            state = ServerState()
            loop = asyncio.get_running_loop()
            await loop.create_server(lambda: HttpProtocol(config, state, {}), sock=self._health, backlog=BACKLOG)
        for sock in sockets or ():
            tune_socket(sock)
        await self._acceptance.open(sockets or ())
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Take as many connections as there is room for."""
        await self._acceptance.pace(self.server_state.connections)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `stop_on_signals`."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, close the streams over the drain's window, then end as uvicorn does."""
        self._acceptance.close()
        for sock in sockets or ():
            sock.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.leave()
        await self._gateway.close_streams(self.drain_s)
        await super().shutdown(sockets)


class Stopping:
    """Whether this process is to end, and whether it may take its time."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.abandoned = False

    def begin(self) -> None:
        """End in order: drain, then close."""
        self.begun.set()

    def abandon(self) -> None:
        """End without waiting for anybody: the parent is gone, and the store with it."""
        self.abandoned = True
        self.begun.set()


async def serve_app(
    settings: Settings,
    sock: socket.socket,
    store_url: str,
    *,
    dev_key: str | None,
    stopping: Stopping,
    announce: Callable[[], None],
    health: socket.socket | None = None,
) -> None:
    """Serve `sock` until `stopping`, drain, and return; `announce` is called once requests are answered."""
    if settings.traces == "otlp":
        tracing.begin(tracing.Tracer(settings.trace_share))
    gateway = build(settings, store_url, dev_key=dev_key)
    try:
        await gateway.start()
        # The socket may be another's by now: listening on it again would take it back.
        if stopping.begun.is_set():
            return
        server = DrainingServer(
            configure(settings, gateway),
            gateway,
            drain_s=settings.drain_s,
            connections=fit_files(settings.connections),
            health=health,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_drain, settings, gateway, server, stopping)
            _spare_the_collector()
            announce()
            await server.serve(sockets=[sock])
            group.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await gateway.aclose()
            await anyio.to_thread.run_sync(tracing.end, abandon_on_cancel=True)


def _spare_the_collector() -> None:
    """Keep collections short: what was built at the start is never looked at again, and few requests leave circles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _drain(settings: Settings, gateway: Gateway, server: DrainingServer, stopping: Stopping) -> None:
    await stopping.begun.wait()
    gateway.begin_drain()
    if stopping.abandoned:
        server.drain_s = 0
    else:
        await anyio.sleep(settings.readiness_lead_s)
    server.should_exit = True


def configure(settings: Settings, gateway: Gateway) -> uvicorn.Config:
    """Return how uvicorn runs the gateway: no lifespan, logs or signals of its own."""
    return uvicorn.Config(
        gateway.asgi,
        http=partial(HttpProtocol, express=gateway.express, streams=gateway.streams),  # type: ignore[arg-type]
        ws=WebSocketProtocol,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # A frame over the gateway's own limits is read whole, so that the answer can say so.
        ws_max_size=2 * settings.batch_bytes + FRAME_OVERHEAD_BYTES,
        ws_ping_interval=settings.keepalive_s,
        # A busy client is not a silent one, however short the pause between pings is.
        ws_ping_timeout=max(settings.keepalive_s, PONG_S),
        ws_per_message_deflate=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, math.ceil(settings.drain_s)),
        backlog=BACKLOG,
    )


async def stop_on_signals(stopping: Stopping) -> None:
    """Begin to stop at the first SIGTERM or SIGINT; the second ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if stopping.begun.is_set():
                os._exit(128 + number)
            logger.info("stopping on %s", number.name)
            stopping.begin()


def set_up_logging(settings: Settings) -> None:
    """Log as the settings say."""
    telemetry.set_up_logging(settings.log_format, settings.log_level.upper())
    telemetry.set_up_access_log(settings.access_log, slow_ms=settings.access_log_slow_ms)
    # Its start and end of a server are ours, too, and said once.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
