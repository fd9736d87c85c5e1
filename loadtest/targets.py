"""What is measured: the gateway, or a peer, as a process pinned to a core; the load has the other one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

READY_S = 15.0
KEY = "gwk_loadtest_development_key_0123456789"
SERVER_CORE, LOAD_CORE = 0, max(0, (os.cpu_count() or 1) - 1)


class Target:
    """A running server under measurement."""

    def __init__(self, name: str, url: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.url = url
        self.pid = process.pid
        where = urlsplit(url)
        self.address = (str(where.hostname), int(where.port or 80))

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs."""
        return {"authorization": f"Bearer {KEY}"}

    def cpu_s(self) -> float:
        """Return the CPU time the server itself has used; its store is another process."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """Return the server's resident memory."""
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def start(name: str, *, fsync: str) -> Iterator[Target]:
    """Run a target until the block ends: `gateway`, or `naive` over a store of the same kind."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        port = _free_port()
        if name == "gateway":
            command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--data-dir", folder]
        elif name == "naive":
            command = [sys.executable, "-m", "loadtest.peers.naive", str(port), folder, fsync]
        elif name == "loop":
            command = ["/tmp/loop", str(port)]
        else:
            raise SystemExit(f"unknown target {name!r}: gateway or naive")
        environ = {
            **os.environ,
            "GATEWAY_DEV_KEY": KEY,
            "GATEWAY_EMBEDDED_FSYNC": fsync,
            "GATEWAY_LOG_LEVEL": "warning",
        }
        with (Path(folder) / "server.log").open("wb") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
            try:
                target = Target(name, f"http://127.0.0.1:{port}", process)
                _wait_ready(target, process)
                _pin(process.pid)
                yield target
            finally:
                family = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                process.wait(30)
                # A server that ends by the signal itself leaves its store behind.
                for child in family:
                    with suppress(psutil.NoSuchProcess):
                        child.terminate()


def _pin(pid: int) -> None:
    """Give the server one core; its store and the load share the other."""
    server = psutil.Process(pid)
    for child in server.children(recursive=True):
        child.cpu_affinity([LOAD_CORE])
    server.cpu_affinity([SERVER_CORE])
    psutil.Process().cpu_affinity([LOAD_CORE])


def _wait_ready(target: Target, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{target.url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{target.name} did not become ready")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
