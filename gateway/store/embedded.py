"""A store of one's own: the bundled Valkey server, on a socket in the data directory.

It speaks what any other store speaks; nothing above this file knows the difference. At most one lives in a
data directory, and on Linux it ends with the gateway that started it, however that ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import SubprocessError
from typing import Final
from urllib.parse import quote

import anyio

from gateway.processes import Backoff
from gateway.store import data_dir as directory
from gateway.store import valkey
from gateway.store.data_dir import DataDirInUse
from gateway.store.valkey import Fsync, StoreStartFailed

logger = logging.getLogger(__name__)

POLL_S: Final = 0.02
# A store whose gateway was killed has been sent SIGTERM; it may answer once more before it obeys.
SETTLE_S: Final = 0.5
STOP_S: Final = 10.0
LOG_BYTES: Final = 1024 * 1024
TAIL_BYTES: Final = 8192
TAIL_LINES: Final = 12


class EmbeddedStore:
    """The store of one data directory, while this process owns it.

    `await start()`, then run `supervise()` in a task group; `await stop()` last, when nobody asks it.
    All in one thread: Linux ends the store with the *thread* that started it.
    """

    def __init__(
        self, data_dir: Path, *, fsync: Fsync = "always", lock_wait_s: float = 3.0, ready_s: float = 120.0
    ) -> None:
        """Prepare the directory; nothing runs yet.

        Args:
            data_dir: Created when it is missing.
            fsync: When an append-only write is flushed to disk.
            lock_wait_s: How long another gateway in this directory may take to end.
            ready_s: How long a store may take to load its data, or to end before another starts.

        Raises:
            DataDirUnusable: it cannot be created, written or reached by a socket.
        """
        self.data_dir = directory.prepare(data_dir)
        self.socket_path = directory.find_socket_path(self.data_dir)
        self.log_path = self.data_dir / "store.log"
        self._fsync: Fsync = fsync
        self._lock_wait_s = lock_wait_s
        self._ready_s = ready_s
        self._ownership: int | None = None
        self._process: Process | None = None
        self._adopted: int | None = None
        self._stopping = False

    @property
    def url(self) -> str:
        """Where clients find the store."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int | None:
        """The store's process, while one lives that this object knows of."""
        if self._process is not None and self._process.returncode is None:
            return self._process.pid
        return self._adopted

    async def start(self) -> None:
        """Own the directory and have a store that answers: one that still lives, or a new one.

        Raises:
            DataDirInUse: another gateway owns the directory and keeps it.
            StoreStartFailed: no server was found, or it did not come up.
        """
        self._ownership = await self._own()
        try:
            await self._begin()
        except BaseException:
            self._disown()
            raise

    async def supervise(self) -> None:
        """Start the store again whenever it dies, later while it keeps dying; returns after `stop`."""
        backoff = Backoff()
        while True:
            await self._wait_end()
            if self._stopping:
                return
            pause_s = backoff.ended()
            logger.error("the embedded store ended; starting it again in %.2f s", pause_s)
            await anyio.sleep(pause_s)
            backoff.began()
            try:
                await self._begin()
            except (StoreStartFailed, OSError) as error:
                logger.error("the embedded store did not come back: %s", error)  # noqa: TRY400
            else:
                logger.warning("the embedded store is back")

    async def stop(self) -> None:
        """End the store and give the directory up; kills a store that does not end within 10 s."""
        self._stopping = True
        with anyio.CancelScope(shield=True):
            await self._end()
        self._disown()

    async def _own(self) -> int:
        deadline = time.monotonic() + self._lock_wait_s
        while (descriptor := directory.take_ownership(self.data_dir)) is None:
            if time.monotonic() >= deadline:
                pid = directory.read_owner(self.data_dir)
                raise DataDirInUse(
                    f"Another gateway (process {pid or 'unknown'}) uses {self.data_dir}: stop it, "
                    "or give this one its own GATEWAY_DATA_DIR, or give both one GATEWAY_REDIS_URL.",
                    pid=pid,
                )
            await anyio.sleep(POLL_S)
        return descriptor

    def _disown(self) -> None:
        if self._ownership is not None:
            os.close(self._ownership)
            self._ownership = None

    async def _begin(self) -> None:
        """Have a store that answers: adopt one that lives and stays, or start one after its end."""
        deadline = time.monotonic() + self._ready_s
        while directory.store_lives(self.data_dir):
            if await self._adopt():
                return
            if time.monotonic() >= deadline:
                raise StoreStartFailed(f"An older store lives in {self.data_dir} and does not answer: end it.")
            await anyio.sleep(POLL_S)
        # uvloop forgets a process whose start is cancelled half-way.
        with anyio.CancelScope(shield=True):
            self._process = process = await self._spawn()
        try:
            await self._wait_ready(process, deadline)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._end()
            raise

    async def _adopt(self) -> bool:
        if not await valkey.answers(self.socket_path):
            return False
        with anyio.move_on_after(SETTLE_S):
            await self._wait_unlocked()
            return False
        with suppress(OSError, TimeoutError):
            await valkey.ask(self.socket_path, f"CONFIG SET appendfsync {self._fsync}")
            found = re.search(rb"process_id:(\d+)", await valkey.ask(self.socket_path, "INFO server"))
            self._adopted = int(found[1]) if found else None
        if self._adopted is not None:
            logger.warning("adopted the store that was left running as process %d", self._adopted)
        return self._adopted is not None

    async def _spawn(self) -> Process:
        binary = await valkey.find_server()
        rotate(self.log_path)
        lock = directory.open_store_lock(self.data_dir)
        try:
            with self.log_path.open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    *(str(binary), *valkey.list_options(self.data_dir, self.socket_path, self._fsync)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.data_dir,
                    env=valkey.list_variables(os.environ),
                    pass_fds=(lock,),
                    # A terminal's Ctrl-C goes to the whole group; the store must outlive the drain.
                    start_new_session=True,
                    preexec_fn=valkey.prepare_process(lock),
                )
        except (OSError, SubprocessError) as error:
            raise StoreStartFailed(f"{binary} cannot be run: {error}. {valkey.NOT_FOUND}") from error
        finally:
            os.close(lock)

    async def _wait_ready(self, process: Process, deadline: float) -> None:
        while not await valkey.answers(self.socket_path):
            if process.returncode is not None:
                raise StoreStartFailed(
                    f"The embedded store ended with status {process.returncode}:\n{read_tail(self.log_path)}"
                )
            if time.monotonic() >= deadline:
                raise StoreStartFailed(f"The embedded store does not answer:\n{read_tail(self.log_path)}")
            await anyio.sleep(POLL_S)

    async def _wait_end(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._adopted is not None:
            await self._wait_unlocked()
            self._adopted = None

    async def _wait_unlocked(self) -> None:
        while directory.store_lives(self.data_dir):  # noqa: ASYNC110 - no event tells of another's lock
            await anyio.sleep(POLL_S)

    async def _end(self) -> None:
        for order in (signal.SIGTERM, signal.SIGKILL):
            with anyio.move_on_after(STOP_S):
                if self.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(self.pid, order)
                await self._wait_end()
                return


@asynccontextmanager
async def borrow_store(data_dir: Path, *, fsync: Fsync = "always") -> AsyncIterator[str]:
    """Yield the URL of the directory's store: that of a running gateway, else one started for the moment.

    Raises:
        DataDirInUse: a gateway owns the directory, but its store does not answer.
        StoreStartFailed: no server was found, or it did not come up.
    """
    store = EmbeddedStore(data_dir, fsync=fsync, lock_wait_s=0)
    try:
        await store.start()
    except DataDirInUse:
        if not await valkey.answers(store.socket_path):
            raise
        yield store.url
        return
    try:
        yield store.url
    finally:
        await store.stop()


def rotate(log_path: Path) -> None:
    """Bound a log that is only ever appended to: one of about a MiB, and the one before it."""
    with suppress(FileNotFoundError):
        if log_path.stat().st_size > LOG_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))


def read_tail(log_path: Path) -> str:
    """Return the last lines of a log, indented."""
    with log_path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
