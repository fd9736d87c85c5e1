"""TLS and a user with the least rights: enough for all that the gateway does, and less is told at once."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.links import linked
from gateway.store.rights import EVERYWHERE, NoRights, StoreTooOld, check_rights, find_refused, name_of, rule
from gateway.store.wire import HANDSHAKE, open_wire
from tests.support.certificates import make_certificates
from tests.support.clusters import Cluster, ServerProcess, find_redis, run_cluster, tls_query
from tests.support.files import stored
from tests.support.native import accepted, get_types
from tests.support.programs import NO_REDIS
from tests.support.readers import SseReader
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.transcripts import Transcript
from tests.support.work import claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

USER = "gateway:secret@"
LOG = ("log", {"level": "info", "message": "one"})


@pytest.fixture(scope="module")
def redis() -> Path:
    """A `redis-server` with TLS."""
    found = find_redis()
    if found is None:
        pytest.skip(NO_REDIS)
    return found


@asynccontextmanager
async def secured(redis: Path) -> AsyncIterator[ServerProcess]:
    """Run a server that takes TLS alone and knows a user with the least rights."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        tls = make_certificates(Path(folder) / "tls")
        server = ServerProcess(redis, Path(folder) / "server", {"user": f"gateway on >secret {rule()}"}, tls=tls)
        try:
            await server.start()
            yield server
        finally:
            server.stop()


@asynccontextmanager
async def secured_cluster(redis: Path) -> AsyncIterator[Cluster]:
    """Run a cluster of such servers."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        tls = make_certificates(Path(folder) / "tls")
        async with run_cluster(Path(folder), binary=redis, tls=tls, user=f"gateway on >secret {rule()}") as cluster:
            yield cluster


def url_of(server: ServerProcess, user: str = USER) -> str:
    """Return a server's URL for a user that has a client's certificate."""
    assert server.tls is not None
    return f"rediss://{user}{server.address}?{tls_query(server.tls)}"


async def live_through(api: RunningGateway) -> None:
    """Use what touches the store in its own way: runs of both modes, lists, files, webhooks, schedules, removal."""
    hook = {"id": "h", "url": "https://example.com/hook", "events": ["*"], "secret": "whsec_" + "A" * 32}
    for body in ({}, {"webhooks": [hook]}):
        created = await api.client.post(
            "/v1/runs",
            json={"agent_id": "tester", "mode": "direct", **body},
            headers={"idempotency-key": f"k{len(body)}"},
        )
        run_id = accepted(created, 201)["id"]
    reader = SseReader(api.url, api.key, run_id, transcript=Transcript())
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(reader.run())
        accepted(await api.append(run_id, LOG))
        accepted(await api.append(run_id, LOG, writer="w", writer_seq=1))
        accepted(await api.client.post(f"/v1/runs/{run_id}/pause"))
        accepted(await api.client.post(f"/v1/runs/{run_id}/resume"))
        await reader.transcript.reaches(6)
        accepted(await api.append(run_id, ("run.completed", {"output": 1})))
    accepted(await api.client.get(f"/v1/runs/{run_id}/wait", params={"timeout_s": 1}))
    await put_agent(api, "worker", queue="q", retry={"max_attempts": 2}, max_concurrent=1)
    queued = await queue_run(api, "q", agent_id="worker")
    claimed = await claim_one(api, "q")
    accepted(await write(api, claimed, LOG, ("run.failed", {"error": {"code": "no", "message": "no"}})))
    await wait_until(lambda: _failed_once(api, queued))
    accepted(await api.client.post(f"/v1/runs/{queued}/cancel", json={"force": True}))
    schedule: dict[str, Any] = {"agent_id": "tester", "cron": "* * * * *", "enabled": False}
    accepted(await api.client.put("/v1/schedules/nightly", json=schedule), 201)
    accepted(await api.client.delete("/v1/schedules/nightly"))
    kept = await stored(api, b"bytes")
    accepted(await api.client.delete(f"/v1/files/{kept['file_id']}"))
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge"))
    listed = accepted(await api.client.get("/v1/runs", params={"status": "cancelled"}))["data"]
    assert [run["id"] for run in listed] == [queued]


async def _failed_once(api: RunningGateway, run_id: str) -> bool:
    return "run.attempt_failed" in await get_types(api, run_id)


async def test_the_least_rights_are_enough_over_tls(redis: Path) -> None:
    """Everything works, and the server's own log knows of no command that was refused."""
    async with secured(redis) as server:
        async with run_gateway(url_of(server), sweep_s=60) as api:
            await live_through(api)
        assert await server.ask("ACL", "LOG") == []


async def test_the_least_rights_are_enough_at_a_cluster_over_tls(redis: Path) -> None:
    """As at one server, at each node."""
    async with secured_cluster(redis) as cluster:
        async with run_gateway(cluster.url_of(USER), sweep_s=60) as api:
            await live_through(api)
        for node in cluster.nodes:
            assert await node.ask("ACL", "LOG") == []


async def test_who_may_do_less_is_told_what_is_missing(redis: Path) -> None:
    """Before anything is served: the commands by name, or the keys; nothing is written to find out."""
    async with secured(redis) as server:
        weak = {
            "few": (rule().replace(" +xadd", "").replace(" +spublish", ""), ["xadd", "spublish"]),
            "mute": (rule().replace(" +evalsha", "").replace(" +eval", ""), ["eval", "evalsha"]),
            "locked": (rule().replace("~gw:*", "~other:*"), ["keys that begin with gw:"]),
            "deaf": (rule().replace("&gw:*", "&other:*"), ["spublish", "ssubscribe"]),
        }
        for name, (rights, refused) in weak.items():
            await server.ask("ACL", "SETUSER", name, "on", ">pass", *rights.split())
            async with linked(url_of(server, f"{name}:pass@"), "test", timeout_s=5) as link:
                found = await find_refused(link)
                assert [word for word in found if word in refused] == refused, (name, found)
                with pytest.raises(NoRights, match="gateway doctor"):
                    await check_rights(link)
        assert await server.ask("DBSIZE") == 0


async def test_a_store_that_is_too_old_is_known_by_what_it_lacks(store: RunningStore) -> None:
    """The script's answer at a server before Redis 7.0 is a word, which is told as an error of its own."""
    script = resources.files("gateway.store").joinpath("lua/check_rights.lua").read_text()
    async with linked(store.url, "test", timeout_s=5) as link:
        told = await link.call("EVAL", f"local redis = {{call = redis.call}}\n{script}", 0, "GET gw:x")
    assert told == [b"OLD"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(65_536):
            for name in re.findall(rb"\r\n(CLIENT|HELLO|EVALSHA)\r\n", command):
                writer.write(b"*1\r\n$3\r\nOLD\r\n" if name == b"EVALSHA" else b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as old:
        url = f"redis://127.0.0.1:{old.sockets[0].getsockname()[1]}"
        async with linked(url, "test", timeout_s=5) as link:
            with pytest.raises(StoreTooOld, match=r"older than Redis 7\.0"):
                await check_rights(link)


async def test_a_wrong_password_is_told(redis: Path) -> None:
    """In the server's own word, to whoever starts the gateway or asks the doctor."""
    async with secured(redis) as server:
        with pytest.raises(StoreUnavailable, match="WRONGPASS"):
            async with linked(url_of(server, "gateway:wrong@"), "test", timeout_s=1) as link:
                await link.call("PING")


async def test_who_stops_waiting_for_a_handshake_leaves_no_error_behind(redis: Path) -> None:
    """A look at a cluster is given up as soon as one node has answered, wherever the others' handshakes are."""
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: failures.append(context))
    async with secured(redis) as server:
        for number in range(60):
            opening = asyncio.create_task(open_wire(url_of(server), "test"))
            await asyncio.wait([opening], timeout=number / 5_000)
            if opening.cancel():
                await asyncio.wait([opening])
            else:
                opening.result().close()
        before = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*(task for task in before if task.get_name() == HANDSHAKE))
    loop.set_exception_handler(usual)
    assert failures == []


def test_every_command_of_every_script_is_among_the_rights() -> None:
    """What a script calls its user has to be allowed, and what is allowed is used somewhere."""
    folder = resources.files("gateway.store").joinpath("lua")
    source = "".join(path.read_text() for path in folder.iterdir() if path.name.endswith(".lua"))
    called = {name.lower() for name in re.findall(r"redis\.call\('([A-Z]+)'", source)}
    allowed = {name_of(command) for command in EVERYWHERE}
    assert called <= allowed
    python = "".join(
        path.read_text() for path in resources.files("gateway.store").iterdir() if path.name.endswith(".py")
    ).replace((resources.files("gateway.store") / "rights.py").read_text(), "")
    unused = {name for name in allowed - called if f'"{name.partition("|")[0].upper()}"' not in python}
    assert not unused
