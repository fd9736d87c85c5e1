"""`gateway serve` and `gateway keys` as their users meet them: real processes, signals and sockets."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import click
import httpx
import psutil
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from gateway.__main__ import cli
from gateway.store import data_dir as directory
from tests.support.processes import is_worker

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
LINE_BYTES = 4096
GONE_S = 0.05


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose only settings are these."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**rest, "GATEWAY_DATA_DIR": str(data_dir), "GATEWAY_READINESS_LEAD_S": "0", **settings}


async def start(data_dir: Path, *arguments: str, **settings: str) -> Process:
    """Start the command line with `arguments`; its output is ours to read."""
    return await anyio.open_process(
        [sys.executable, "-m", "gateway", *arguments], env=environment(data_dir, settings), stderr=None
    )


async def run(data_dir: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Run the command line to its end; return its status, output and errors."""
    with anyio.fail_after(PATIENCE_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "gateway", *arguments], env=environment(data_dir, settings), check=False
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Served:
    """A gateway that runs as a process of its own."""

    def __init__(self, process: Process, url: str, key: str | None) -> None:
        self.process = process
        self.url = url
        self.key = key

    def children(self) -> list[psutil.Process]:
        """Return the worker processes, oldest first."""
        found = psutil.Process(self.process.pid).children()
        return [child for child in found if is_worker(child)]

    def get(self, path: str, *, key: str | None = None) -> httpx.Response:
        """Ask on a connection of its own, which any of the processes may take."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.get(self.url + path, headers=headers, timeout=PATIENCE_S)

    def is_ready(self) -> bool:
        """Tell whether requests should be sent."""
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the status with which the process ends."""
        with anyio.fail_after(PATIENCE_S):
            self.process.send_signal(number)
            return await self.process.wait()


@asynccontextmanager
async def serving(data_dir: Path, *arguments: str, **settings: str) -> AsyncIterator[Served]:
    """Yield a gateway on a free port once it is ready."""
    process = await start(data_dir, "serve", "--port", "0", *arguments, **settings)
    try:
        served = await read_welcome(process)
        await until(served.is_ready)
        yield served
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()
            await until(lambda: not directory.store_lives(data_dir))


async def read_welcome(process: Process) -> Served:
    """Return the address and the key that a gateway prints when it serves."""
    assert process.stdout is not None
    lines = BufferedByteReceiveStream(process.stdout)
    said: list[str] = []
    with anyio.fail_after(PATIENCE_S):
        while not said or not said[-1].startswith("  run"):
            said.append((await lines.receive_until(b"\n", LINE_BYTES)).decode())
    text = "\n".join(said)
    url, key = re.search(r"^gateway on (http://\S+)", text, re.M), re.search(r"^  key +(\S+)", text, re.M)
    assert url is not None, text
    return Served(process, url[1], key[1] if key is not None else None)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    with anyio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - other processes set no events
            await anyio.sleep(0.02)


async def test_a_fresh_gateway_is_ready_and_prints_its_key(tmp_path: Path) -> None:
    """One command gives an address and a key that works, kept where the other commands look for it."""
    async with serving(tmp_path) as served:
        assert served.key is not None
        assert (tmp_path / "dev.key").read_text().strip() == served.key
        assert served.get("/v1/runs", key=served.key).status_code == 200
        assert served.get("/v1/runs").status_code == 401


async def test_a_fixed_key_is_honoured_on_loopback(tmp_path: Path) -> None:
    """GATEWAY_DEV_KEY makes the key known beforehand."""
    async with serving(tmp_path, GATEWAY_DEV_KEY="a-known-key") as served:
        assert served.key == "a-known-key"
        assert served.get("/v1/runs", key="a-known-key").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(tmp_path: Path, workers: str, number: signal.Signals) -> None:
    """The first signal drains and ends with status 0; no process and no store are left."""
    async with serving(tmp_path, "--workers", workers) as served:
        children = psutil.Process(served.process.pid).children(recursive=True)
        assert len(children) == (1 if workers == "1" else 3)
        assert await served.end(number) == 0
        assert not psutil.wait_procs(children, timeout=GONE_S)[1]
        assert not directory.store_lives(tmp_path)


async def test_readiness_is_red_before_it_stops_accepting(tmp_path: Path) -> None:
    """A balancer has time to look elsewhere while requests are still served."""
    async with serving(tmp_path, GATEWAY_READINESS_LEAD_S="2") as served:
        served.process.terminate()
        await until(lambda: served.get("/readyz").status_code == 503)
        assert served.get("/healthz").status_code == 200
        assert await served.process.wait() == 0


async def test_open_streams_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """A stream that never ends by itself is closed within the drain's window."""
    async with serving(tmp_path, GATEWAY_DRAIN_S="1") as served, httpx.AsyncClient() as client:
        headers = {"Authorization": f"Bearer {served.key}", "Accept": "text/event-stream"}
        async with client.stream("GET", f"{served.url}/v1/feed", headers=headers) as response:
            assert response.status_code == 200
            with anyio.fail_after(10):
                assert await served.end() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever is in a hurry does not wait for the drain."""
    async with serving(tmp_path, GATEWAY_READINESS_LEAD_S="60") as served:
        served.process.terminate()
        await until(lambda: served.get("/readyz").status_code == 503)
        with anyio.fail_after(5):
            assert await served.end() == 128 + signal.SIGTERM


async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """The gateway goes on serving, with as many processes as before."""
    async with serving(tmp_path, "--workers", "2") as served:
        first, second = served.children()
        first.kill()
        await until(lambda: len(served.children()) == 2 and first.pid not in [c.pid for c in served.children()])
        assert second.pid in [child.pid for child in served.children()]
        second.kill()
        await until(served.is_ready)


async def test_new_workers_take_the_place_of_all_without_a_request_lost(tmp_path: Path) -> None:
    """SIGHUP replaces every worker, one after another; each new one serves before an old one goes."""
    async with serving(tmp_path, "--workers", "2", GATEWAY_DRAIN_S="0.2") as served:
        old = {child.pid for child in served.children()}
        fewest = 2
        served.process.send_signal(signal.SIGHUP)
        with anyio.fail_after(PATIENCE_S):
            while True:
                present = {child.pid for child in served.children()}
                fewest = min(fewest, len(present))
                answer = await anyio.to_thread.run_sync(served.get, "/healthz")
                assert answer.status_code == 200
                if len(present) == 2 and not present & old:
                    break
        assert fewest == 2
        assert served.process.returncode is None
        assert await served.end() == 0


async def test_health_has_a_port_of_its_own(tmp_path: Path) -> None:
    """Where it is given one, `/healthz`, `/readyz` and `/metrics` are answered there, and nothing else is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for workers in ("1", "2"):
        async with serving(tmp_path, "--workers", workers, GATEWAY_HEALTH_PORT=str(port)) as served:
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v1/runs", 404)):
                assert Served(served.process, f"http://127.0.0.1:{port}", None).get(path).status_code == status
            assert await served.end() == 0


async def test_a_store_that_dies_is_replaced(tmp_path: Path) -> None:
    """`kill -9` of the store makes the gateway unready for a moment, not for good."""
    async with serving(tmp_path) as served:
        (store,) = psutil.Process(served.process.pid).children()
        store.kill()
        await until(lambda: not store.is_running())
        await until(served.is_ready)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_killed_gateway_can_be_started_again_at_once(tmp_path: Path, workers: str) -> None:
    """`kill -9` leaves nothing that holds the port or the data directory for longer than a moment."""
    async with serving(tmp_path, "--workers", workers) as served:
        port = served.url.rsplit(":", 1)[1]
        served.process.kill()
        await served.process.wait()
        async with serving(tmp_path, "--workers", workers, "--port", port) as again:
            assert (again.url, again.key) == (served.url, served.key)


async def test_a_second_gateway_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """The refusal is one clear message and names what to set."""
    async with serving(tmp_path) as served:
        status, _, errors = await run(tmp_path, "serve", "--port", "0")
        assert status == 1
        assert f"process {served.process.pid}" in errors
        assert "GATEWAY_DATA_DIR" in errors
        assert "Traceback" not in errors


async def test_what_cannot_be_set_is_told_in_one_message(tmp_path: Path) -> None:
    """A flag is checked as its variable is, before anything starts."""
    status, _, errors = await run(tmp_path, "serve", "--workers", "0", GATEWAY_LEASES_S="1")
    assert status == 1
    assert "GATEWAY_WORKERS='0' is not allowed: a whole number from 1 to 64." in errors
    assert "GATEWAY_LEASES_S is no setting; did you mean GATEWAY_LEASE_S?" in errors
    assert not (tmp_path / "store.log").exists()


async def test_a_taken_port_is_told_in_one_message(tmp_path: Path) -> None:
    """Two gateways on one port are told apart by their port, not by a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, _, errors = await run(tmp_path, "serve", "--port", port)
    assert status == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in errors


async def test_a_store_that_is_not_there_is_told_in_one_message(tmp_path: Path) -> None:
    """A wrong GATEWAY_REDIS_URL is named; nothing is served without a store."""
    missing = f"unix://{tmp_path}/none.sock"
    status, _, errors = await run(
        tmp_path, "serve", "--port", "0", GATEWAY_REDIS_URL=missing, GATEWAY_STORE_TIMEOUT_S="0.2"
    )
    assert status == 1
    assert errors.startswith("gateway: Cannot begin without the store of GATEWAY_REDIS_URL: ")


async def test_two_gateways_share_the_store_they_are_given(tmp_path: Path) -> None:
    """With GATEWAY_REDIS_URL no store is started, and keys made through one gateway's store work at the other."""
    async with serving(tmp_path / "first", GATEWAY_DEV_KEY="a-known-key") as first:
        shared = f"unix://{tmp_path}/first/store.sock"
        async with serving(tmp_path / "second", GATEWAY_REDIS_URL=shared, GATEWAY_DEV_KEY="other-known-key") as second:
            assert not psutil.Process(second.process.pid).children()
            _, key, _ = await run(tmp_path / "second", "keys", "create", GATEWAY_REDIS_URL=shared)
            assert first.get("/v1/runs", key=key.strip()).status_code == 200
            assert second.get("/v1/runs", key=key.strip()).status_code == 200
            assert second.get("/v1/runs", key="a-known-key").status_code == 401


async def test_the_metrics_of_all_workers_are_told_by_each(tmp_path: Path) -> None:
    """Whichever process a scrape meets, it counts the requests of all."""
    async with serving(tmp_path, "--workers", "2") as served:
        for _ in range(20):
            served.get("/v1/runs", key=served.key)
        asked = re.compile(r"^gateway_http_requests_total\{[^}]*/v1/runs\"[^}]*\} (\d+)", re.M)
        totals = [sum(map(int, asked.findall(served.get("/metrics").text))) for _ in range(10)]
    assert totals == [20] * 10


async def test_others_are_served_only_with_stored_keys(tmp_path: Path) -> None:
    """On an address that others reach there is no development key: first a key, then a gateway."""
    status, _, errors = await run(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert status == 1
    assert "gateway keys create" in errors

    status, key, _ = await run(tmp_path, "keys", "create", "--name", "ci")
    assert status == 0
    async with serving(tmp_path, "--host", "0.0.0.0", GATEWAY_DEV_KEY="a-known-key") as served:
        served.url = served.url.replace("0.0.0.0", "127.0.0.1")
        assert served.key is None
        assert served.get("/v1/runs", key=key.strip()).status_code == 200
        assert served.get("/v1/runs", key="a-known-key").status_code == 401


async def test_a_demo_without_a_key_is_told_what_to_give_it(tmp_path: Path) -> None:
    """Stored keys end the development key; the demo agent is not started again and again with one that is refused."""
    assert (await run(tmp_path, "keys", "create"))[0] == 0
    code, _, errors = await run(tmp_path, "serve", "--demo", "--port", "0")
    assert code == 1
    (line,) = errors.splitlines()
    assert "GATEWAY_KEY" in line
    assert "GATEWAY_DEV_KEY" in line
    async with serving(tmp_path, "--demo", GATEWAY_DEV_KEY="chosen") as served:
        assert served.key == "chosen"


async def test_keys_are_made_listed_and_revoked_beside_a_running_gateway(tmp_path: Path) -> None:
    """The command line and the gateway see the same keys, and a list never shows one."""
    async with serving(tmp_path, GATEWAY_ACCESS_RECHECK_S="0.1") as served:
        options = ("--tenant", "acme", "--name", "ci", "--scope", "runs:read", "--agent", "researcher")
        status, key, told = await run(tmp_path, "keys", "create", *options)
        assert status == 0
        assert key.startswith("gwk_")
        key_id = re.search(r"^Key (\S+) of tenant acme", told)
        assert key_id is not None
        assert served.get("/v1/runs", key=key.strip()).status_code == 200

        _, listed, _ = await run(tmp_path, "keys", "list")
        heading, line = listed.splitlines()
        assert heading.split() == ["ID", "TENANT", "NAME", "SCOPES", "AGENTS", "MADE", "EXPIRES", "STATE"]
        assert line.split()[:5] == [key_id[1], "acme", "ci", "runs:read", "researcher"]
        assert key.strip() not in listed

        lives = ("--overlap", "0s", "--expires-in", "90d")
        status, successor, told = await run(tmp_path, "keys", "rotate", key_id[1], *lives)
        assert status == 0, told
        assert served.get("/v1/runs", key=successor.strip()).status_code == 200
        await until(lambda: served.get("/v1/runs", key=key.strip()).status_code == 401)
        _, listed, _ = await run(tmp_path, "keys", "list")
        assert [line.split()[-1] for line in listed.splitlines()[1:]] == ["expired", "works"]

        key = successor
        key_id = re.search(r"^Key (\S+) takes the place of", told)
        assert key_id is not None
        assert (await run(tmp_path, "keys", "revoke", key_id[1]))[0] == 0
        await until(lambda: served.get("/v1/runs", key=key.strip()).status_code == 401)


async def test_revoking_a_key_that_is_none_fails(tmp_path: Path) -> None:
    """A mistyped id is not taken for a success."""
    status, _, errors = await run(tmp_path, "keys", "revoke", "key_none")
    assert (status, errors) == (1, "gateway: There is no key key_none.\n")


def test_every_command_and_option_has_its_help() -> None:
    """Nobody has to read the source to use the command line."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        nested = command.commands.values() if isinstance(command, click.Group) else ()
        for each in (command, *nested):
            options = [option for option in each.params if isinstance(option, click.Option)]
            assert each.help, each.name
            assert all(option.help for option in options), each.name
