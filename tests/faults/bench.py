"""What faults are done to: a gateway, its store if it is ours, and a relay on each hop."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.address import Address
from tests.support.clusters import Cluster, run_cluster
from tests.support.processes import GatewayProcess, serving
from tests.support.proxy import Far, Proxy, lay_proxy
from tests.support.running import RunningStore, wait_until
from tests.support.sentinels import Watched, run_watched

DISK_MIB = 24
LINK_S = 30.0
STORE_OPTIONS = {"repl-diskless-sync-delay": "0", "repl-timeout": "5", "aof-load-truncated": "yes"}
SETTINGS: dict[str, Any] = {"store_timeout_s": 1, "keepalive_s": 0.5, "store_hold_s": 5}
STORE_CLOCK, GATEWAY_CLOCK = "store.clock", "gateway.clock"
FAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")


class Kind(StrEnum):
    """What a gateway stands on."""

    OUTER = "outer"  # two workers, and a store of its own process that syncs every write
    REPLICATED = "replicated"  # the same, and a replica of the store
    SMALL_DISK = "small_disk"  # the store, flushed every second, on a disk that can be filled
    FAKED_CLOCK = "faked_clock"  # a store and a gateway whose clocks can be put, each by itself
    EMBEDDED = "embedded"  # the gateway's own store, on a disk that can be filled
    CLUSTER = "cluster"  # two workers, and a cluster of three primaries with a replica each
    WATCHED = "watched"  # two workers, and a store and its replica that sentinels watch over
    FOREIGN = "foreign"  # somebody else's gateway


class Bench(msgspec.Struct, kw_only=True):
    """A gateway on the bench; what is None is not ours to break."""

    kind: Kind
    folder: Path
    direct: Address
    client_hop: Proxy
    gateway: GatewayProcess | None = None
    store: RunningStore | None = None
    store_hop: Proxy | None = None
    replica: RunningStore | None = None
    replica_hop: Proxy | None = None
    cluster: Cluster | None = None
    watched: Watched | None = None

    @property
    def the_gateway(self) -> GatewayProcess:
        """The gateway, where it is ours."""
        assert self.gateway is not None
        return self.gateway

    @property
    def the_store(self) -> RunningStore:
        """The store, where it is ours."""
        assert self.store is not None
        return self.store

    @property
    def the_store_hop(self) -> Proxy:
        """The relay before the store, where it is ours."""
        assert self.store_hop is not None
        return self.store_hop

    @property
    def the_cluster(self) -> Cluster:
        """The cluster, where the store is one."""
        assert self.cluster is not None
        return self.cluster

    @property
    def the_watched(self) -> Watched:
        """The servers and their sentinels, where the store has some."""
        assert self.watched is not None
        return self.watched

    async def start_store(self) -> None:
        """Start the store, or start it again."""
        await asyncio.to_thread(self.the_store.start)


def missing(kind: Kind) -> str | None:
    """Return what this machine lacks for such a bench, None when nothing."""
    if kind in (Kind.SMALL_DISK, Kind.EMBEDDED) and not can_mount():
        return "a small disk needs the right to mount a tmpfs"
    if kind is Kind.FAKED_CLOCK and find_faketime() is None:
        return "a store's clock is put by libfaketime (the package faketime)"
    return None


def can_mount() -> bool:
    """Tell whether a tmpfs can be mounted here."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        return False
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(tried, capture_output=True, check=False).returncode == 0
    )


def find_faketime() -> Path | None:
    """Return libfaketime's library."""
    found = [path for pattern in FAKETIME for path in Path("/").glob(pattern.lstrip("/"))]
    return found[0] if found else None


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Yield a directory that is a disk of its own, of 24 MiB."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@asynccontextmanager
async def open_bench(kind: Kind, folder: Path) -> AsyncIterator[Bench]:
    """Have a gateway on a bench for as long as the block lasts."""
    if kind is Kind.EMBEDDED:
        async with _open_embedded(folder) as bench:
            yield bench
        return
    if kind in (Kind.CLUSTER, Kind.WATCHED):
        async with _open_many(kind, folder) as bench:
            yield bench
        return
    async with AsyncExitStack() as stack:
        place = stack.enter_context(small_disk(folder / "disk")) if kind is Kind.SMALL_DISK else folder / "store"
        store = await start_store(stack, place, kind, folder)
        store_hop = await stack.enter_async_context(lay_proxy(Far(path=store.socket_path)))
        redis_url = f"redis://127.0.0.1:{store_hop.port}"
        gateway = GatewayProcess(folder / "data", workers=2, redis_url=redis_url, **SETTINGS)
        if kind is Kind.FAKED_CLOCK:
            gateway.environ |= fake_clock(folder / GATEWAY_CLOCK)
        stack.callback(gateway.clean_up)
        await gateway.start()
        client_hop = await stack.enter_async_context(lay_proxy(gateway.port))
        bench = Bench(
            kind=kind,
            folder=folder,
            direct=Address(gateway.url, gateway.key),
            client_hop=client_hop,
            gateway=gateway,
            store=store,
            store_hop=store_hop,
        )
        if kind is Kind.REPLICATED:
            bench.replica = await start_store(stack, folder / "replica", kind, folder)
            bench.replica_hop = await stack.enter_async_context(lay_proxy(Far(path=store.socket_path)))
            await follow(bench)
        yield bench


@asynccontextmanager
async def _open_embedded(folder: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        gateway = await stack.enter_async_context(serving(disk / "data", workers=2, **SETTINGS))
        client_hop = await stack.enter_async_context(lay_proxy(gateway.port))
        yield Bench(
            kind=Kind.EMBEDDED,
            folder=folder,
            direct=Address(gateway.url, gateway.key),
            client_hop=client_hop,
            gateway=gateway,
        )


@asynccontextmanager
async def _open_many(kind: Kind, folder: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        cluster, watched = None, None
        if kind is Kind.CLUSTER:
            cluster = await stack.enter_async_context(run_cluster(folder, replicas=1))
            url = cluster.url
        else:
            watched = await stack.enter_async_context(run_watched(folder))
            url = watched.url
        settings = {**SETTINGS, "redis_url": url}
        gateway = await stack.enter_async_context(serving(folder / "data", workers=2, **settings))
        client_hop = await stack.enter_async_context(lay_proxy(gateway.port))
        yield Bench(
            kind=kind,
            folder=folder,
            direct=Address(gateway.url, gateway.key),
            client_hop=client_hop,
            gateway=gateway,
            cluster=cluster,
            watched=watched,
        )


@asynccontextmanager
async def open_foreign(address: Address, far: Far, folder: Path) -> AsyncIterator[Bench]:
    """Have somebody else's gateway on the bench: all that can be broken is the way to it."""
    async with lay_proxy(far) as direct, lay_proxy(far) as client_hop:
        yield Bench(kind=Kind.FOREIGN, folder=folder, direct=Address(direct.url, address.key), client_hop=client_hop)


async def start_store(stack: AsyncExitStack, place: Path, kind: Kind, folder: Path) -> RunningStore:
    """Return a store that runs, until the stack is left."""
    options, environ = dict(STORE_OPTIONS), {}
    if kind is Kind.SMALL_DISK:
        options["appendfsync"] = "everysec"
    if kind is Kind.FAKED_CLOCK:
        environ = fake_clock(folder / STORE_CLOCK)
    store = RunningStore(place, environ=environ, **options)
    await asyncio.to_thread(begin, store)
    stack.callback(store.stop)
    return store


def begin(store: RunningStore) -> None:
    """Start a store in a folder that may not be there yet."""
    store.folder.mkdir(exist_ok=True)
    store.start()


def fake_clock(path: Path) -> dict[str, str]:
    """Return the environment of a process whose clock is put by `put_clock`."""
    put_clock(path, 0)
    return {
        "LD_PRELOAD": str(find_faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(path),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def put_clock(path: Path, offset_s: int) -> None:
    """Have a faked clock differ from the true one by so much."""
    new = path.with_suffix(".new")
    new.write_text(f"{offset_s:+d}s")
    new.replace(path)


async def follow(bench: Bench) -> None:
    """Have the replica follow the store, and wait until it has all of it."""
    replica, hop = bench.replica, bench.replica_hop
    assert replica is not None
    assert hop is not None
    hop.far = Far(path=bench.the_store.socket_path)
    replica.ask(f"REPLICAOF 127.0.0.1 {hop.port}")
    await wait_until(lambda: "master_link_status:up" in replica.ask("INFO replication"), timeout_s=LINK_S)
