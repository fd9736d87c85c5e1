"""A store that sentinels watch over: found through them, and left when it is the primary no more."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.link import NodeLink
from gateway.store.sentinel import NoPrimary, open_store
from tests.support.clusters import find_port, find_redis
from tests.support.links import connect
from tests.support.native import accepted
from tests.support.programs import NO_REDIS
from tests.support.running import run_gateway, wait_until
from tests.support.sentinels import FORM_S, SERVICE, Watched, run_watched
from tests.support.transcripts import read_log

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["valkey", "redis"])
async def watched(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Watched]:
    """A primary, a replica and three sentinels."""
    binary = find_redis() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip(NO_REDIS)
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with run_watched(Path(folder), binary=binary) as watched:
            yield watched


async def test_a_sentinel_that_is_away_is_passed_over(watched: Watched) -> None:
    """Whichever is left tells the way; the database that the URL names is the primary's."""
    watched.sentinels[0].kill()
    wire = await open_store(f"{watched.url}/3", "tester")
    clients = await wire.ask("CLIENT", "LIST")
    wire.close()
    await watched.sentinels[0].start()
    (mine,) = [line for line in clients.decode().splitlines() if "name=tester " in line]
    assert " db=3 " in mine


async def test_a_service_that_nobody_knows_is_named(watched: Watched) -> None:
    """Whoever reads why no connection stands reads what each sentinel said."""
    unknown = watched.url.replace(f"/{SERVICE}", "/other")
    with pytest.raises(NoPrimary, match=r"primary of other: .*it knows no service other"):
        await open_store(unknown, "tester")
    async with connect(unknown) as link:
        with pytest.raises(StoreUnavailable):
            await link.call("PING")
        assert "it knows no service other" in link.trouble


async def test_sentinels_that_say_nothing_do_not_stand_in_the_way(watched: Watched) -> None:
    """Those that answer are heard before the others' time, or that of the connection, is up."""

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as silent:
        mute = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        url = watched.url.replace("redis+sentinel://", f"redis+sentinel://{mute},{mute},")
        link = NodeLink(url, "tester", timeout_s=1)
        running = asyncio.create_task(link.run())
        assert await link.wait_up(30)
        running.cancel()
        await asyncio.wait([running])


async def test_nobody_at_the_sentinels_addresses_is_an_error_of_the_network() -> None:
    """As a store that is away."""
    with pytest.raises(ConnectionError, match="no sentinel leads to the primary of runs"):
        await open_store(f"redis+sentinel://127.0.0.1:{find_port()}/runs", "tester")


async def test_a_gateway_follows_the_primary_that_sentinels_promote(watched: Watched) -> None:
    """With one sentinel dead, the primary killed and another in its place, the log goes on where it was."""
    async with run_gateway(watched.url) as api:
        run = (await api.create_run())["id"]
        accepted(await api.append(run, ("log", {"level": "info", "message": "before"})))
        primary = await watched.primary()
        replica = next(server for server in watched.servers if server is not primary)
        await wait_until(lambda: _caught_up(watched, replica))
        primary.kill()

        async def is_written() -> bool:
            answer = await api.append(run, ("log", {"level": "info", "message": "after"}), writer="w", writer_seq=1)
            assert answer.status_code in (200, 503), answer.text
            return answer.status_code == 200

        await wait_until(is_written, timeout_s=FORM_S)
        assert await watched.find_primary() == replica.address
        marks = [mark for _, mark in await read_log(api.client, run)]
        assert marks[-2:] == ["before", "after"]


async def _caught_up(watched: Watched, replica: object) -> bool:
    offsets = [(await server.info("replication"))["master_repl_offset"] for server in watched.servers]
    return len(set(offsets)) == 1 and replica in watched.servers
