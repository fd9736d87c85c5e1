"""The probe: streams at a known pace, takes bodies in, and is bounded, for anybody may ask."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.edge.probe import AT_ONCE
from tests.support.running import RunningGateway, wait_until

pytestmark = pytest.mark.anyio


async def test_chunks_are_numbered_and_the_first_says_what_came_through(api: RunningGateway) -> None:
    """Nobody needs a key; of the request's headers the names are told, never what they hold."""
    async with httpx.AsyncClient(base_url=api.url) as anybody:
        headers = {"last-event-id": "secret", "lease": "secret"}
        answer = await anybody.get("/v1/probe?chunks=3&pause_ms=1", headers=headers)
    assert answer.headers["content-type"] == "text/event-stream"
    assert (answer.headers["x-accel-buffering"], answer.headers["cache-control"]) == ("no", "no-store, no-transform")
    assert [line[:19] for line in answer.text.split("\n\n")[:-1]] == [f'data: {{"chunk":{n},"o' for n in (1, 2, 3)]
    assert '"headers":["last-event-id","lease"]' in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize("query", ["chunks=21", "pause_ms=1001", "chunks=0", "pause_ms=-1", "chunks=x", "more=1"])
async def test_a_pace_beyond_its_bounds_is_refused(api: RunningGateway, query: str) -> None:
    """A stranger cannot have a long stream."""
    answer = await api.client.get(f"/v1/probe?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"


async def test_a_body_is_counted_and_one_that_is_too_large_is_refused(api: RunningGateway) -> None:
    """Bodies get as far as those of the API do."""
    answer = await api.client.post("/v1/probe", content=b"x" * 1_000_000)
    assert answer.json()["bytes"] == 1_000_000
    limit = api.gateway.services.bounds.body_bytes
    assert (await api.client.post("/v1/probe", content=b"x" * (limit + 1))).status_code == 413


async def test_more_probes_than_a_process_answers_at_once_are_sent_away(api: RunningGateway) -> None:
    """The next is told when to come back, and comes through once the others have ended."""
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as anybody:
        slow = [asyncio.create_task(anybody.get("/v1/probe?chunks=20&pause_ms=100")) for _ in range(AT_ONCE)]

        async def is_busy() -> bool:
            answer = await anybody.get("/v1/probe?chunks=1")
            return answer.status_code == 503 and answer.json()["code"] == "busy" and "retry-after" in answer.headers

        await wait_until(is_busy, timeout_s=30)
        assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}
        assert (await anybody.get("/v1/probe?chunks=1")).status_code == 200
