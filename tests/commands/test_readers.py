"""`gateway readers`: who reads and who lags, in a terminal and for a program."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE

import pytest

from tests.support.native import open_client
from tests.support.running import RunningGateway, wait_until
from tests.support.sockets import open_socket

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0


async def ask(gateway: RunningGateway, *arguments: str, key: str | None = None) -> tuple[int | None, str, str]:
    """Run the command and return its status and what it said."""
    command = [sys.executable, "-m", "gateway", "readers", "--url", gateway.url, "--key", key or gateway.key]
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, stdout=PIPE, stderr=PIPE, env={"COLUMNS": "200"}
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, out.decode(), err.decode()


async def test_open_streams_are_listed(api: RunningGateway) -> None:
    """One line a stream: what it lacks, why, since when, how far it is of how much, whose it is; JSON says all."""
    run_id = (await api.create_run())["id"]
    async with open_socket(api) as one, open_socket(api) as other:
        for socket in (one, other):
            await socket.do("subscribe", run_id=run_id)
        await wait_until(lambda: len(api.gateway.hub.outlets) == 2, timeout_s=PATIENCE_S)
        await one.quiet()
        status, said, complaint = await ask(api)
        assert (status, complaint) == (0, "")
        heading, *lines = said.splitlines()
        assert heading.split() == ["lacks", "why", "since", "sent", "of", "by", "key", "log"]
        assert len(lines) == 2
        for line in lines:
            assert line.split()[0] == "0"
            assert "ws loopback" in line
            assert run_id in line
        status, said, _ = await ask(api, "--json", "--limit", "1", "--run", run_id)
        assert status == 0
        (reader,) = [json.loads(line) for line in said.splitlines()]
        assert (reader["logs"][0]["log"], reader["tenant"]) == (run_id, api.tenant)
        assert (await ask(api, "--json", "--behind", "3600"))[:2] == (0, "")


async def test_a_refusal_is_said_in_words(api: RunningGateway) -> None:
    """A key without the right, and a filter that is none."""
    async with open_client(api, scopes={"runs:read"}) as reader:
        key = reader.headers["authorization"].removeprefix("Bearer ")
        status, _, complaint = await ask(api, key=key)
    assert (status, complaint) == (3, "gateway: This needs the scope admin. (403 forbidden)\n")
    status, _, complaint = await ask(api, "--behind", "-1")
    assert status == 3
    assert "behind_s" in complaint
