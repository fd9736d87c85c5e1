"""What the doctor finds between itself and a gateway: nothing, a real nginx set up well and badly, one that holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.commands.doctor.finding import Finding
from gateway.commands.doctor.way_ward import judge_way
from tests.support import nginx
from tests.support.native import open_client
from tests.support.running import RunningGateway, RunningStore, run_gateway

pytestmark = [pytest.mark.anyio]

needs_nginx = pytest.mark.skipif(nginx.NGINX is None, reason="nginx is not installed: the way through it is NOT tried")

HOLDS_BYTES = 2**20


@pytest.fixture(scope="module")
async def lively(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that gives signs of life often."""
    async with run_gateway(store.url, keepalive_s=0.3) as running:
        yield running


async def find(url: str, key: str | None, *, idle_s: float = 1.5) -> dict[str, Finding]:
    """Return what is found on the way, by the name of the check."""
    return {finding.check: finding for finding in await judge_way(url, key, idle_s=idle_s)}


async def test_nothing_between_is_nothing_found(lively: RunningGateway) -> None:
    """Bytes come as they are sent, headers and bodies get through, a WebSocket opens, silence is survived."""
    found = await find(lively.url, lively.key)
    assert {name: finding.said for name, finding in found.items() if finding.level in ("problem", "warning")} == {}
    assert found.keys() >= {"answers", "buffering", "compression", "headers", "HTTP version", "bodies"}
    assert found["idle stream"].level == found["idle WebSocket"].level == "good"
    assert found["WebSocket"].said == "A WebSocket gets through, and is answered."


async def test_without_a_key_what_takes_one_is_told_as_not_tried(lively: RunningGateway) -> None:
    """Everything else is tried: the probe asks for no key, and a refused WebSocket has got through."""
    found = await find(lively.url, None)
    assert found["idle"].level == "note"
    assert "takes a key" in found["idle"].said
    assert found["WebSocket"].level == "good"
    assert found["buffering"].level == "good"


async def test_a_key_that_is_not_taken_is_told_as_that(lively: RunningGateway) -> None:
    """What it closes is not blamed on a proxy; one that may not read is no fault."""
    found = await find(lively.url, "gwk_wrong")
    problems = {name: finding for name, finding in found.items() if finding.level == "problem"}
    assert problems.keys() == {"key"}
    assert "not taken" in problems["key"].said
    assert "gateway keys" in problems["key"].cure
    assert found["WebSocket"].level == "good"
    async with open_client(lively, scopes={"work"}) as worker:
        key = worker.headers["authorization"].removeprefix("Bearer ")
        found = await find(lively.url, key)
    assert {name: finding.said for name, finding in found.items() if finding.level == "problem"} == {}
    assert "may not read" in found["key"].said
    assert (await find(lively.url, lively.key))["key"].level == "good"


async def test_an_address_where_nothing_answers_is_one_problem() -> None:
    """The rest is not tried, and nothing is blamed on a proxy."""
    found = await find("http://127.0.0.1:1", None)
    assert [(name, finding.level) for name, finding in found.items()] == [("answers", "problem")]


@needs_nginx
async def test_an_nginx_that_is_set_up_as_told_lets_everything_through(lively: RunningGateway, tmp_path: Path) -> None:
    """The directives that the doctor names as cures are enough."""
    with nginx.before(lively.port, tmp_path, nginx.GOOD) as url:
        found = await find(url, lively.key)
    assert {name: finding.said for name, finding in found.items() if finding.level in ("problem", "warning")} == {}
    assert "nginx" in found["proxy"].said


@needs_nginx
async def test_an_nginx_that_is_set_up_badly_is_found_out(store: RunningStore, tmp_path: Path) -> None:
    """Buffering by compression, HTTP/1.0, small bodies, lost headers, no upgrades, cut silence: each with its cure."""
    async with run_gateway(store.url, keepalive_s=60) as quiet:
        with nginx.before(quiet.port, tmp_path, nginx.BAD) as url:
            found = await find(url, quiet.key, idle_s=20)
    problems = {name for name, finding in found.items() if finding.level == "problem"}
    assert problems == {
        "buffering",
        "compression",
        "headers",
        "HTTP version",
        "bodies",
        "WebSocket",
        "idle stream",
    }
    assert "the first byte came after" in found["buffering"].said
    assert "`proxy_buffering off`" in found["buffering"].cure
    assert "(gzip)" in found["compression"].said
    assert "lease" in found["headers"].said
    assert "client_max_body_size" in found["bodies"].cure
    assert "426" in found["WebSocket"].said
    assert "`proxy_read_timeout 75s`" in found["idle stream"].cure


@asynccontextmanager
async def holding(port: int) -> AsyncIterator[str]:
    """Yield the URL of a way that passes requests on at once, and an answer only when it is whole."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)
        head = (await reader.readuntil(b"\r\n\r\n")).replace(b"\r\nConnection: keep-alive", b"\r\nConnection: close")
        upstream.write(head)
        passing = asyncio.create_task(_pass(reader, upstream))
        held = await upstream_reader.read(-1)
        writer.write(held)
        writer.close()
        passing.cancel()
        upstream.close()

    async def contained(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(contained, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(HOLDS_BYTES):
        writer.write(part)
        await writer.drain()


async def test_a_way_that_holds_answers_back_is_told_by_its_timing(lively: RunningGateway) -> None:
    """The bytes are all there and none is changed: only when they came gives it away."""
    async with holding(lively.port) as url:
        found = await find(url, None)
    assert found["buffering"].level == "problem"
    assert found["compression"].level == "good"
    assert found["headers"].level == "good"
