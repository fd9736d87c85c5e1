"""A primary with replicas, and the sentinels that watch over them, on free ports of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from gateway.store.valkey import find_server
from tests.support.clusters import ServerProcess
from tests.support.running import wait_until

SERVICE = "runs"
DOWN_MS = 1_000
FORM_S = 90.0


class SentinelProcess(ServerProcess):
    """A sentinel; what it learns it writes into its own configuration."""

    def __init__(self, binary: Path, folder: Path, watch: Mapping[str, str]) -> None:
        super().__init__(binary, folder, {})
        own = ("bind", "port", "dir", "logfile")
        self.options = {name: self.options[name] for name in own} | dict(watch)

    def arguments(self) -> list[str]:
        """Return the command line, with a configuration if there is none yet."""
        path = self.folder / "sentinel.conf"
        if not path.exists():
            path.write_text("".join(f"{name} {value}\n" for name, value in self.options.items()))
        return [str(self.binary), str(path), "--sentinel"]


class Watched:
    """Servers under one name at three sentinels."""

    def __init__(self, servers: list[ServerProcess], sentinels: list[ServerProcess]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The URL through the sentinels."""
        return f"redis+sentinel://{','.join(sentinel.address for sentinel in self.sentinels)}/{SERVICE}"

    async def find_primary(self) -> str:
        """Return the address that the first sentinel tells."""
        found = await self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        assert isinstance(found, list)
        return f"{found[0].decode()}:{found[1].decode()}"

    async def primary(self) -> ServerProcess:
        """Return the server that the sentinels call the primary."""
        address = await self.find_primary()
        (found,) = [server for server in self.servers if server.address == address]
        return found

    async def replaced(self, primary: ServerProcess) -> ServerProcess:
        """Wait until every sentinel names another server, and return it."""

        async def is_replaced() -> bool:
            told = [await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE) for sentinel in self.sentinels]
            ports = {int(found[1]) for found in told if isinstance(found, list)}
            return primary.port not in ports and len(ports) == 1

        await wait_until(is_replaced, timeout_s=FORM_S)
        return await self.primary()

    async def healed(self) -> None:
        """Wait until one server is the primary and every other follows it."""

        async def is_whole() -> bool:
            primary = await self.primary()
            try:
                told = [await server.info("replication") for server in self.servers if server is not primary]
            except OSError:
                # Sentinels end the connections of a server whose role they change.
                return False
            links = [(fields.get("master_port"), fields.get("master_link_status")) for fields in told]
            return links == [(str(primary.port), "up")] * (len(self.servers) - 1)

        await wait_until(is_whole, timeout_s=FORM_S)


@asynccontextmanager
async def run_watched(folder: Path, *, binary: Path | None = None, **options: str) -> AsyncIterator[Watched]:
    """Have a primary, a replica and three sentinels for as long as the block lasts.

    Args:
        binary: The server of all; the bundled one without.
        options: The servers' own, with _ for -.
    """
    server = binary or await find_server()
    chosen = {name.replace("_", "-"): value for name, value in options.items()}
    first = ServerProcess(server, folder / "server0", chosen)
    second = ServerProcess(server, folder / "server1", {**chosen, "replicaof": f"127.0.0.1 {first.port}"})
    watch = {
        "sentinel monitor": f"{SERVICE} 127.0.0.1 {first.port} 2",
        "sentinel down-after-milliseconds": f"{SERVICE} {DOWN_MS}",
        "sentinel failover-timeout": f"{SERVICE} 5000",
    }
    sentinels: list[ServerProcess] = [SentinelProcess(server, folder / f"sentinel{n}", watch) for n in range(3)]
    watched = Watched([first, second], sentinels)
    try:
        await _start(first, second)

        async def follows() -> bool:
            return (await second.info("replication"))["master_link_status"] == "up"

        # A sentinel looks for replicas at once, and then every ten seconds.
        await wait_until(follows, timeout_s=FORM_S)
        await _start(*sentinels)
        await _acquainted(watched)
        yield watched
    finally:
        for each in (first, second, *sentinels):
            each.stop()


async def _start(*processes: ServerProcess) -> None:
    async with anyio.create_task_group() as starts:
        for each in processes:
            starts.start_soon(each.start)


async def _acquainted(watched: Watched) -> None:
    """Wait until each sentinel knows the replica and the other sentinels: before, none can be promoted."""

    async def are_acquainted() -> bool:
        for sentinel in watched.sentinels:
            told = await sentinel.ask("SENTINEL", "MASTER", SERVICE)
            assert isinstance(told, list)
            fields = dict(zip(told[::2], told[1::2], strict=True))
            if (fields[b"num-slaves"], fields[b"num-other-sentinels"]) != (b"1", b"2"):
                return False
        return True

    await wait_until(are_acquainted, timeout_s=FORM_S)
