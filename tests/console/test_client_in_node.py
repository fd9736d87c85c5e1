"""The browser's client without a browser: its pure parts and its connections, in Node, against a real gateway."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.programs import NO_NODE, find_node
from tests.support.proxy import Dooms, lay_proxy
from tests.support.running import RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

NODE = find_node()
SUITE = Path(__file__).with_name("node") / "client.test.mjs"
SECONDS = 90
TEST_MS = 80_000


@pytest.mark.skipif(NODE is None, reason=NO_NODE)
async def test_the_client_keeps_its_promises_in_node(
    gateway: RunningGateway, store: RunningStore, tmp_path: Path
) -> None:
    """Folds, resumption over SSE and WebSocket, tickets, gaps, resets, iteration and control: `client.test.mjs`
    runs on the very bytes that the gateway serves."""
    served = tmp_path / "client.mjs"
    served.write_bytes((await gateway.client.get("/client.js")).content)
    dooms = Dooms(7, cuts=12, most_bytes=6_000, most_s=0.6, black_holes=0)
    async with (
        run_gateway(store.url, ticket_ttl_s=1, access_recheck_s=0.05) as short,
        lay_proxy(gateway.port, choose=dooms) as proxy,
        lay_proxy(gateway.port, choose=Dooms(8, cuts=60, most_bytes=6_000, most_s=0.6, black_holes=0)) as busier,
    ):
        environ = {
            **os.environ,
            "CLIENT": str(served),
            "GATEWAY": gateway.url,
            "CUTTING": proxy.url,
            "CUTTING_MORE": busier.url,
            "SHORT": short.url,
            "KEY": gateway.key,
            "SHORT_KEY": short.key,
        }
        assert NODE is not None
        process = await asyncio.create_subprocess_exec(
            NODE,
            "--experimental-websocket",
            "--test",
            f"--test-timeout={TEST_MS}",
            str(SUITE),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                told, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, told.decode()
        assert proxy.cuts.total() > 0
