"""What is measured: the gateway, or a peer, as processes pinned to a core; the load and all stores have the other."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from loadtest.build import build
from loadtest.peers import nginx

READY_S = 20.0
KEY = "gwk_loadtest_development_key_0123456789"
SERVER_CORE, LOAD_CORE = 0, max(0, (os.cpu_count() or 1) - 1)
STORES = ("valkey", "redis")

NAMES = ("gateway", "nchan", "nchan-redis", "naive", "loop")
PARTS = ("bare", "bare-auth", "bare-checks", "bare-store")
"""The gateway's own path with less of it; see `loadtest.peers.bare`."""


class Target:
    """A running server under measurement."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        self._process = psutil.Process(process.pid)

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs."""
        return {"authorization": f"Bearer {KEY}"} if self.name in ("gateway", *PARTS) else {}

    @property
    def marker(self) -> str:
        """What comes before an event's number in a stream: its id, which counts up, or is nchan's second and count."""
        return "\nid: "

    def stream_request(self, run_id: str, query: str = "") -> str:
        """Return the request for a run's stream."""
        lines = [f"GET /v1/runs/{run_id}/stream{query} HTTP/1.1", "Host: load", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines) + "\r\n\r\n"

    def upgrade_request(self) -> str:
        """Return the request for a WebSocket."""
        lines = ["GET /v1/ws HTTP/1.1", "Host: load", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines) + "\r\n\r\n"

    def socket_request(self, run_id: str) -> str:
        """Return the request for a WebSocket, and the line that follows a run on it."""
        command = {"type": "subscribe", "run_id": run_id, "after_seq": 0}
        return f"{self.upgrade_request()}{json.dumps(command)}\n"

    def _family(self, *, stores: bool) -> list[psutil.Process]:
        family = [self._process, *self._process.children(recursive=True)]
        return [each for each in family if each.name().startswith(STORES) == stores]

    def cpu_s(self, *, stores: bool = False) -> float:
        """Return the CPU time of the server's processes; of its stores' instead."""
        times = [each.cpu_times() for each in self._family(stores=stores)]
        return float(sum(each.user + each.system for each in times))

    def rss_bytes(self) -> int:
        """Return the server's resident memory."""
        return int(sum(each.memory_info().rss for each in self._family(stores=False)))

    def pin(self, server_cores: Sequence[int], load_cores: Sequence[int]) -> None:
        """Give the server its cores, and everything else the others."""
        for each in self._family(stores=True):
            each.cpu_affinity(list(load_cores))
        for each in self._family(stores=False):
            each.cpu_affinity(list(server_cores))
        psutil.Process().cpu_affinity(list(load_cores))


def is_installed(name: str) -> bool:
    """Whether a target can be started on this machine."""
    if name.startswith("nchan"):
        return nginx.is_installed() and (name == "nchan" or shutil.which("redis-server") is not None)
    return name in (*NAMES, *PARTS)


@contextmanager
def start(name: str, *, fsync: str = "everysec", environ: Mapping[str, str] | None = None) -> Iterator[Target]:
    """Run a target until the block ends; a gateway of several workers has all cores, any other one."""
    workers = int((environ or {}).get("GATEWAY_WORKERS", "1"))
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder:
        port = _free_port()
        ours = {"GATEWAY_DEV_KEY": KEY, "GATEWAY_EMBEDDED_FSYNC": fsync, "GATEWAY_LOG_LEVEL": "warning"}
        command = _command(name, port, Path(folder), fsync)
        with (Path(folder) / "server.log").open("wb") as log:
            environment = {**os.environ, **ours, **(environ or {})}
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                target = Target(name, port, process)
                _wait_ready(target, process, Path(folder) / "server.log")
                target.pin([SERVER_CORE] if workers == 1 else list(range(os.cpu_count() or 1)), [LOAD_CORE])
                yield target
            finally:
                _end(process)


def _command(name: str, port: int, folder: Path, fsync: str) -> list[str]:
    match name:
        case "gateway":
            return [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--data-dir", str(folder)]
        case "naive":
            return [sys.executable, "-m", "loadtest.peers.naive", str(port), str(folder), fsync]
        case "bare" | "bare-auth" | "bare-checks" | "bare-store":
            return [sys.executable, "-m", "loadtest.peers.bare", str(port), str(folder), fsync, name]
        case "loop":
            return [str(build("peers/loop.c")), str(port)]
        case "nchan":
            return nginx.command(folder, port, redis_port=None, fsync=fsync)
        case "nchan-redis":
            return nginx.command(folder, port, redis_port=_free_port(), fsync=fsync)
    raise SystemExit(f"unknown target {name!r}: one of {', '.join(NAMES)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    process.wait(30)
    # A server that ends by the signal itself leaves its store behind.
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    psutil.wait_procs(family, 5)


def _wait_ready(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{target.url}/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise SystemExit(f"{target.name} did not become ready: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
