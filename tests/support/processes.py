"""Gateways as their operators run them: processes with a data directory, killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.running import wait_until

READY_S = 30.0
END_S = 30.0
SETTINGS = {
    "dev_key": "scenario-key",
    "readiness_lead_s": 0,
    "drain_s": 0.2,
    "keepalive_s": 1,
    "retry_ms": 20,
    "sweep_s": 0.5,
    "probe_s": 0.2,
}


def is_worker(process: psutil.Process) -> bool:
    """Return whether this is a process that serves, and is alive."""
    try:
        return "serve-worker" in process.cmdline()
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


class GatewayProcess:
    """`gateway serve` on one port and one data directory, through any number of lives.

    Everything it ever started is known by process, not by name, and ended by `clean_up`.
    """

    def __init__(self, data_dir: Path, *, workers: int = 1, **settings: Any) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]
        self.data_dir = data_dir
        self.workers = workers
        self.settings = {**SETTINGS, **settings}
        self.key = str(self.settings["dev_key"])
        self.log_path = data_dir.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._family: set[psutil.Process] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that was started: the parent of all others."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote, all lives together."""
        return self.log_path.read_text(errors="replace")

    def client(self, **settings: Any) -> httpx.AsyncClient:
        """Return an HTTP client with its key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(**{"base_url": self.url, "headers": headers, "timeout": 20, **settings})

    def launch(self) -> None:
        """Start it, and return before it is ready."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        chosen = {f"GATEWAY_{name.upper()}": str(value) for name, value in self.settings.items()}
        arguments = ["--port", str(self.port), "--data-dir", str(self.data_dir), "--workers", str(self.workers)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", *arguments],
                env={**environ, **chosen},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def start(self) -> None:
        """Start it and wait until all of its processes serve."""
        served = self._serving()
        self.launch()
        await self.wait_ready(served + self.workers)

    async def wait_ready(self, served: int = 0) -> None:
        """Wait until it is ready, and `served` worker processes have said so since the first start."""
        async with self.client() as client:

            async def is_ready() -> bool:
                assert self._process is not None
                assert self._process.poll() is None, self.log
                with suppress(httpx.TransportError):
                    answer = await client.get("/readyz")
                    return answer.status_code == 200 and (self.workers == 1 or self._serving() >= served)
                return False

            await wait_until(is_ready, timeout_s=READY_S)
        self.family()

    def _serving(self) -> int:
        return self.log.count(" serves\n") if self.log_path.exists() else 0

    def family(self) -> set[psutil.Process]:
        """Return every process that it has started so far and that still lives, itself included."""
        if self._process is not None and self._process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(self._process.pid)
                self._family |= {parent, *parent.children(recursive=True)}
        return {process for process in self._family if lives(process)}

    def store(self) -> psutil.Process:
        """Return its embedded store's process."""
        found = [process for process in self.family() if process.name().startswith("valkey-server")]
        if len(found) != 1:
            raise LookupError(f"stores: {found}")
        return found[0]

    def serving_workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        return [process for process in self.family() if is_worker(process)]

    def worker_of(self, local_port: int) -> int:
        """Return the process that serves the connection from `local_port` of this machine."""
        for process in self.serving_workers():
            for connection in process.net_connections("tcp4"):
                if connection.raddr and connection.raddr.port == local_port:
                    return process.pid
        raise LookupError(f"no worker has the connection from port {local_port}")

    async def kill(self) -> None:
        """End the parent without warning."""
        self.family()
        self.signal(signal.SIGKILL)
        await self.wait()

    async def kill_store(self) -> None:
        """End the store without warning, and wait until another has been started."""
        store = self.store()
        store.kill()
        await wait_until(lambda: self._has_other_store(store), timeout_s=END_S)

    def _has_other_store(self, store: psutil.Process) -> bool:
        try:
            return self.store() != store
        except (LookupError, psutil.NoSuchProcess):
            return False

    async def stop(self) -> int:
        """Let it drain; returns its exit status once all of its processes are gone."""
        self.family()
        self.signal(signal.SIGTERM)
        status = await self.wait()
        await wait_until(lambda: not self.family(), timeout_s=END_S)
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send the parent a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Return the parent's exit status."""
        process = self._process
        assert process is not None
        await wait_until(lambda: process.poll() is not None, timeout_s=END_S)
        assert process.returncode is not None
        return process.returncode

    def clean_up(self) -> None:
        """Kill what is left."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(END_S)


def lives(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def serving(data_dir: Path, *, workers: int = 1, **settings: Any) -> AsyncIterator[GatewayProcess]:
    """Run a gateway for as long as the block lasts; `settings` are those of the gateway, by their names."""
    gateway = GatewayProcess(data_dir, workers=workers, **settings)
    try:
        await gateway.start()
        yield gateway
    finally:
        gateway.clean_up()
