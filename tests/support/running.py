"""A real store and real gateways to test against: `RunningStore` is a process, `run_gateway` serves in this one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import uvicorn
from ulid import ULID

from gateway.app import Gateway, build
from gateway.commands.server import configure
from gateway.domain.access import SCOPES
from gateway.keyring import open_access
from gateway.settings import Settings
from gateway.store.valkey import find_server

START_S = 10.0


class RunningStore:
    """A Valkey server with an append-only file that is synced at every write, on a unix socket in `folder`.

    Args:
        options: More of the server's own options.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self._folder = folder
        self._options = options
        self._socket = folder / "store.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        binary = anyio.run(find_server)
        options = {
            "unixsocket": str(self._socket),
            "port": "0",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "logfile": str(self._folder / "store.log"),
            **self._options,
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([str(binary), *arguments])
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < deadline, "the store did not start"
            assert self._process.poll() is None, (self._folder / "store.log").read_text()
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1)
            try:
                sock.connect(str(self._socket))
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def kill(self) -> None:
        """End the server as a crash does."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the server in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


class RunningGateway:
    """A gateway and how to reach it.

    `client` is an HTTP client with an administrator's key of a tenant that no other test uses.
    """

    def __init__(
        self,
        gateway: Gateway,
        url: str,
        key: str,
        tenant: str,
        client: httpx.AsyncClient,
        data_dir: Path = Path(),
    ) -> None:
        self.gateway = gateway
        self.data_dir = data_dir
        self.url = url
        self.key = key
        self.tenant = tenant
        self.client = client

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    async def create_run(self, **body: Any) -> dict[str, Any]:
        """Create a direct run and return it."""
        answer = await self.client.post("/v1/runs", json={"agent_id": "tester", "mode": "direct", **body})
        assert answer.status_code == 201, answer.text
        run: dict[str, Any] = answer.json()
        return run

    async def append(self, run_id: str, *events: tuple[str, Any], **more: Any) -> httpx.Response:
        """Append (type, data) events."""
        batch = [{"type": kind, "data": data} for kind, data in events]
        return await self.client.post(f"/v1/runs/{run_id}/events", json={"events": batch, **more})

    async def run_in(self, status: str) -> dict[str, Any]:
        """Return a new run that stands in `status`: queued, delayed, running, paused, completed …"""
        run = await self.create_run(**({"delay_s": 3600} if status == "delayed" else {}))
        for step in PATHS[status]:
            answer = await _walk(self, run["id"], step)
            assert answer.status_code == 200, answer.text
        answer = await self.client.get(f"/v1/runs/{run['id']}")
        assert answer.json()["status"] == status
        found: dict[str, Any] = answer.json()
        return found


LOG = ("log", {"level": "info", "message": "working"})
ASK = ("run.waiting_for_input", {"prompt": "Go on?"})
COMPLETE = ("run.completed", {"output": {"answer": 42}})
FAIL = ("run.failed", {"error": {"code": "broken", "message": "It broke."}})

PATHS: dict[str, list[Any]] = {
    "queued": [],
    "delayed": [],
    "running": [LOG],
    "waiting_for_input": [LOG, ASK],
    "paused": [LOG, "pause"],
    "cancelling": [LOG, "cancel"],
    "completed": [LOG, COMPLETE],
    "failed": [LOG, FAIL],
    "cancelled": ["cancel"],
}


async def _walk(running: RunningGateway, run_id: str, step: Any) -> httpx.Response:
    if isinstance(step, str):
        return await running.client.post(f"/v1/runs/{run_id}/{step}")
    return await running.append(run_id, step)


@asynccontextmanager
async def run_gateway(store_url: str, *, tenant: str | None = None, **changes: Any) -> AsyncIterator[RunningGateway]:
    """Serve a gateway in this process on a free port of 127.0.0.1, with `changes` to the default settings."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        chosen = {"readiness_lead_s": 0.0, "drain_s": 0.2, "data_dir": Path(folder), **changes}
        async with _run_gateway(Settings(**chosen), store_url, tenant or f"t{ULID()}") as running:
            yield running


@asynccontextmanager
async def _run_gateway(settings: Settings, store_url: str, tenant: str) -> AsyncIterator[RunningGateway]:
    async with open_access(settings, store_url) as keys:
        key, _ = await keys.create(tenant=tenant, name="test", scopes=SCOPES, principal=None, agents=None)
    gateway = build(settings, store_url, dev_key=None)
    server = uvicorn.Server(configure(settings, gateway))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        await gateway.start()
        serving = asyncio.create_task(server._serve([sock]))
        try:
            headers = {"authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
                yield RunningGateway(gateway, url, key, tenant, client, settings.data_dir)
        finally:
            await gateway.close_streams(0)
            server.should_exit = True
            await serving
            await gateway.aclose()


async def wait_until(condition: Any, *, timeout_s: float = 10.0) -> None:
    """Wait until `condition()`, which may be a coroutine function, is true."""
    async with asyncio.timeout(timeout_s):
        while True:
            met = condition()
            if asyncio.iscoroutine(met):
                met = await met
            if met:
                return
            await asyncio.sleep(0.005)
