"""A gateway as its users run it, and a wire to it that can be cut."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import httpx

from gateway.client import Backoff, Client

READY_S = 20.0
STOP_S = 20.0
SOON = Backoff(initial_s=0.01, max_s=0.05)
"""Tests do not wait as long between attempts as programs should."""


class Gateway:
    """`gateway serve` as a process of its own, on one port and one data directory."""

    def __init__(self, data_dir: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> str:
        """Its development key."""
        return (self.data_dir / "dev.key").read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        return {**clean, "GATEWAY_URL": self.url, "GATEWAY_KEY": self.key}

    def client(self, url: str | None = None) -> Client:
        """Return a client of it, by another way when `url` says so."""
        return Client(url or self.url, key=self.key, backoff=SOON)

    def start(self) -> None:
        """Start it and return when it is ready."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gateway", "serve"),
                *("--port", str(self.port), "--data-dir", str(self.data_dir)),
            ],
            env={**clean, "GATEWAY_KEEPALIVE_S": "0.2", "GATEWAY_CANCEL_GRACE_S": "3"},
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_S
        while not self._is_ready():
            assert self._process.poll() is None, "the gateway ended"
            assert time.monotonic() < deadline, "the gateway is not ready"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it without warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it drain and end."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(STOP_S)
        self._process = None


@contextmanager
def run_gateway(data_dir: Path) -> Iterator[Gateway]:
    """Run a gateway for as long as the block lasts."""
    gateway = Gateway(data_dir)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


class Wire:
    """A relay to a gateway, whose connections break as it is told.

    `life_bytes`: each connection is cut after a random number of bytes from the gateway, up to so many.
    `mute`: what the gateway sends is swallowed.
    """

    def __init__(self, target_port: int) -> None:
        self.life_bytes: int | None = None
        self.mute = False
        self.connections = 0
        self.cuts = 0
        self.url = ""
        self._target_port = target_port
        self._connected = asyncio.Condition()
        self._carrying: set[asyncio.Task[None]] = set()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side, or a cut, ends it."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def close(self) -> None:
        """Cut every connection."""
        for task in self._carrying:
            task.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._connected:
            self.connections += 1
            self._connected.notify_all()
        ends: list[asyncio.StreamWriter] = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as ways:
                upstream = ways.create_task(self._carry(reader, far_writer))
                await self._carry_back(far_reader, writer)
                upstream.cancel()
        except OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def wait_connections(self, count: int) -> None:
        """Wait until so many connections have been made."""
        async with self._connected:
            await self._connected.wait_for(lambda: self.connections >= count)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()

    async def _carry_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = None if self.life_bytes is None else random.randrange(self.life_bytes)
        while chunk := await reader.read(65536):
            if self.mute:
                continue
            if left is not None and len(chunk) > left:
                self.cuts += 1
                writer.write(chunk[:left])
                await writer.drain()
                return
            if left is not None:
                left -= len(chunk)
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def lay_wire(target_port: int) -> AsyncIterator[Wire]:
    """Open a relay to a port of this machine for as long as the block lasts."""
    wire = Wire(target_port)
    server = await asyncio.start_server(wire.take, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
