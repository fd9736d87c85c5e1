"""A cluster of real servers on free ports of this machine, and what is done to it: slots moved, nodes killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import anyio
from redis.crc import key_slot
from redis.exceptions import ResponseError

from gateway.store.link import Argument
from gateway.store.slots import SLOTS
from gateway.store.valkey import find_server
from gateway.store.wire import open_wire
from tests.support.certificates import Certificates
from tests.support.running import wait_until

FORM_S = 90.0
NODE_TIMEOUT_MS = 1_000
MIGRATE_MS = 5_000


def find_port() -> int:
    """Return a port that is free now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
    return port


def find_redis() -> Path | None:
    """Return the `redis-server` of this machine, None where there is none."""
    found = shutil.which("redis-server")
    return None if found is None else Path(found)


class ServerProcess:
    """A store's server, sentinel or node of a cluster on a port of this machine, through any number of lives."""

    def __init__(
        self, binary: Path, folder: Path, options: Mapping[str, str], *, tls: Certificates | None = None
    ) -> None:
        self.binary = binary
        self.folder = folder
        self.port = find_port()
        self.tls = tls
        self.options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "logfile": str(folder / "server.log"),
            "repl-diskless-sync-delay": "0",
            **(_tls_options(tls, self.port) if tls else {}),
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its URL, by itself."""
        return f"redis://{self.address}" if self.tls is None else f"rediss://{self.address}?{tls_query(self.tls)}"

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def arguments(self) -> list[str]:
        """Return the command line."""
        words = [word for name, value in self.options.items() for word in (f"--{name}", *(value.split() or [""]))]
        return [str(self.binary), *words]

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._launch()

        async def answers() -> bool:
            assert self.lives, (self.folder / "server.log").read_text()
            with suppress(OSError, TimeoutError, ResponseError):
                return await self.ask("PING") == b"PONG"
            return False

        await wait_until(answers)

    def _launch(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(self.arguments(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def ask(self, *command: Argument) -> object:
        """Return the answer to one command, over a connection of its own."""
        wire = await open_wire(self.url, "test")
        try:
            return await wire.ask(*command)
        finally:
            wire.close()

    async def info(self, section: str) -> dict[str, str]:
        """Return fields of `INFO`."""
        return read_fields(await self.ask("INFO", section))

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Have it stand still."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, however it stands."""
        if self._process is not None and self.lives:
            self.kill()


def _tls_options(tls: Certificates, port: int) -> dict[str, str]:
    """Return what has a server take TLS alone, from clients that have a certificate, and use it among its kind."""
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-ca-cert-file": str(tls.authority),
        "tls-cert-file": str(tls.certificate),
        "tls-key-file": str(tls.key),
        "tls-auth-clients": "yes",
        "tls-replication": "yes",
        "tls-cluster": "yes",
    }


def tls_query(tls: Certificates) -> str:
    """Return the options of a URL by which a client trusts the authority and shows its certificate."""
    return f"ssl_ca_certs={tls.authority}&ssl_certfile={tls.certificate}&ssl_keyfile={tls.key}"


def read_fields(reply: object) -> dict[str, str]:
    """Return the lines of an `INFO` as names and values."""
    assert isinstance(reply, bytes)
    return dict(line.partition(":")[::2] for line in reply.decode().splitlines())


class Cluster:
    """Primaries, each with as many replicas, as they began: a failover changes roles."""

    def __init__(self, primaries: list[ServerProcess], replicas: list[ServerProcess]) -> None:
        self.primaries = primaries
        self.replicas = replicas

    @property
    def nodes(self) -> list[ServerProcess]:
        """Every node."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """The cluster's URL."""
        return self.url_of("")

    def url_of(self, user: str) -> str:
        """Return the cluster's URL with a user's `name:password@`."""
        hosts, tls = ",".join(node.address for node in self.nodes), self.nodes[0].tls
        if tls is None:
            return f"redis+cluster://{user}{hosts}"
        return f"rediss+cluster://{user}{hosts}?{tls_query(tls)}"

    def at(self, address: str) -> ServerProcess:
        """Return the node at an address."""
        (found,) = [node for node in self.nodes if node.address == address]
        return found

    async def owner(self, slot: int) -> ServerProcess:
        """Return the node that has a slot, as a node that lives says."""
        return self.at(await self.find_owner(slot))

    async def find_owner(self, slot: int) -> str:
        """Return the address of the node that has a slot, as a node that lives says."""
        asked = next(node for node in self.nodes if node.lives)
        ranges = await asked.ask("CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        for first, last, primary, *_ in ranges:
            if first <= slot <= last:
                return f"{primary[0].decode()}:{primary[1]}"
        raise LookupError(f"nobody has slot {slot}")

    async def present_primaries(self) -> list[ServerProcess]:
        """Return the nodes that are primaries now."""
        return [node for node in self.nodes if (await node.info("replication"))["role"] == "master"]

    async def node_id(self, node: ServerProcess) -> str:
        """Return by which name the cluster knows a node."""
        found = await node.ask("CLUSTER", "MYID")
        assert isinstance(found, bytes)
        return found.decode()

    async def works(self) -> bool:
        """Whether every node that lives says that all slots are served."""
        told = [read_fields(await node.ask("CLUSTER", "INFO")) for node in self.nodes if node.lives]
        return all(fields["cluster_state"] == "ok" for fields in told)

    async def begin_move(self, slot: int, to: ServerProcess) -> ServerProcess:
        """Open a slot for its way to another node; returns the node that has it."""
        source = await self.owner(slot)
        await to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await self.node_id(source))
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await self.node_id(to))
        return source

    async def move_keys(self, slot: int, source: ServerProcess, to: ServerProcess, *, most: int = 1_000_000) -> int:
        """Move keys of a slot that is open, one after another; returns how many."""
        moved = 0
        while moved < most:
            names = await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1)
            if not names:
                break
            assert isinstance(names, list)
            await source.ask("MIGRATE", "127.0.0.1", to.port, names[0], 0, MIGRATE_MS)
            moved += 1
        return moved

    async def end_move(self, slot: int, to: ServerProcess) -> None:
        """Give a slot to a node, and tell every primary."""
        name = await self.node_id(to)
        for node in [to, *(node for node in await self.present_primaries() if node is not to)]:
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

    async def move(self, slot: int, to: ServerProcess) -> None:
        """Move a slot with its keys."""
        source = await self.begin_move(slot, to)
        await self.move_keys(slot, source, to)
        await self.end_move(slot, to)

    async def follow(self, replica: ServerProcess, primary: ServerProcess) -> None:
        """Have a node be a primary's replica, and wait until it has all of it."""
        name = await self.node_id(primary)

        async def knows() -> bool:
            told = await replica.ask("CLUSTER", "NODES")
            assert isinstance(told, bytes)
            return name.encode() in told

        await wait_until(knows, timeout_s=FORM_S)
        await replica.ask("CLUSTER", "REPLICATE", name)

        async def follows() -> bool:
            return (await replica.info("replication")).get("master_link_status") == "up"

        await wait_until(follows, timeout_s=FORM_S)


@asynccontextmanager
async def run_cluster(
    folder: Path, *, binary: Path | None = None, replicas: int = 0, tls: Certificates | None = None, **options: str
) -> AsyncIterator[Cluster]:
    """Have a cluster of three primaries, each with as many replicas, for as long as the block lasts.

    Args:
        binary: The server; the bundled one without.
        options: The servers' own, with _ for -.
    """
    server = binary or await find_server()
    count = 3 * (1 + replicas)
    chosen = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-replica-validity-factor": "0",
        **{name.replace("_", "-"): value for name, value in options.items()},
    }
    nodes = [
        ServerProcess(server, folder / f"node{index}", {**chosen, "cluster-port": str(find_port())}, tls=tls)
        for index in range(count)
    ]
    cluster = Cluster(nodes[:3], nodes[3:])
    try:
        async with anyio.create_task_group() as starts:
            for node in nodes:
                starts.start_soon(node.start)
        await _form(cluster)
        yield cluster
    finally:
        for node in nodes:
            node.stop()


async def _form(cluster: Cluster) -> None:
    first = cluster.primaries[0]
    for index, node in enumerate(cluster.nodes):
        await node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
    for node in cluster.nodes[1:]:
        await first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.options["cluster-port"])
    bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
    for index, node in enumerate(cluster.primaries):
        await node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1)
    await wait_until(cluster.works, timeout_s=FORM_S)
    for index, replica in enumerate(cluster.replicas):
        await cluster.follow(replica, cluster.primaries[index % 3])


def slot_of_run(run_id: str) -> int:
    """Return the slot of all that belongs to a run."""
    return key_slot(run_id.encode())
