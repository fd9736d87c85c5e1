"""Limits as clients meet them: control routes are told when to come back, streams are held, others go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.dialects.native.streaming import new_key, open_stream
from tests.support.native import accepted, open_client, refused
from tests.support.running import LOG, RunningStore, run_gateway, wait_until
from tests.support.sockets import open_socket

pytestmark = pytest.mark.anyio

FEW_S = 0.2
"""A rate at which a key may ask once in five seconds."""


async def test_a_key_over_its_rate_is_told_when_to_come_back(store: RunningStore) -> None:
    """429 with `Retry-After` and the limit's name, for this key alone; health is nobody's request."""
    async with run_gateway(store.url, key_requests_s=FEW_S) as running:
        other, _ = await new_key(running, scopes=["admin"])
        assert (await running.client.get("/v1/runs")).status_code == 200
        answer = await running.client.get("/v1/runs")
        problem = refused(answer, 429, "too_many_requests")
        assert problem["limit"] == "key_requests_s"
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        headers = {"authorization": f"Bearer {other}"}
        assert (await running.client.get("/v1/runs", headers=headers)).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await running.client.get(path)).status_code == 200


async def test_a_stream_over_its_key_s_rate_is_held_not_refused(store: RunningStore) -> None:
    """A browser's EventSource would not come back after 429: the stream opens once there is room for it."""
    async with run_gateway(store.url, key_requests_s=0.5) as running:
        run = await running.create_run()
        async with asyncio.timeout(30), open_stream(running, f"/v1/runs/{run['id']}/stream") as stream:
            assert stream.status == 200
            assert (await stream.next()).name == "stream.open"


async def test_a_resuming_stream_beyond_the_limit_waits_for_a_place(store: RunningStore) -> None:
    """Its request is not answered until another stream ends; then it goes on where it stood."""
    async with run_gateway(store.url, key_streams=1) as running:
        run = await running.create_run()
        await running.append(run["id"], LOG, LOG)
        path = f"/v1/runs/{run['id']}/stream"
        async with open_stream(running, path) as first:
            await first.take(2)

            async def resume() -> list[Any]:
                async with open_stream(running, path, headers={"Last-Event-ID": "1"}) as second:
                    assert second.status == 200
                    return await second.take(2)

            resuming = asyncio.create_task(resume())
            await wait_until(lambda: len(running.gateway._places._waiting) == 1)
            assert not resuming.done()
            assert (await running.client.get("/v1/runs")).status_code == 200
        frames = await resuming
        assert frames[1].data["seq"] == 2


async def test_a_stream_for_which_no_place_comes_free_is_dropped_without_an_answer(store: RunningStore) -> None:
    """A dropped connection is what an EventSource reconnects after; nothing of it is left behind."""
    async with run_gateway(store.url, key_streams=1, store_hold_s=0.1) as running:
        run = await running.create_run()
        path = f"/v1/runs/{run['id']}/stream"
        async with open_stream(running, path):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                async with open_stream(running, path):
                    pass
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                async with open_stream(running, f"/v1/threads/{run['thread_id']}/stream"):
                    pass
        await wait_until(lambda: running.gateway._places._open == 0)
        async with open_stream(running, path) as stream:
            assert stream.status == 200


async def test_a_drain_does_not_wait_for_streams_that_are_held(store: RunningStore) -> None:
    """Whoever waits for a place is sent elsewhere at once."""
    async with run_gateway(store.url, key_streams=1) as running:
        run = await running.create_run()
        path = f"/v1/runs/{run['id']}/stream"
        async with open_stream(running, path):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {running.key}\r\n\r\n".encode())
            await wait_until(lambda: len(running.gateway._places._waiting) == 1)
            await running.gateway.close_streams(0)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()


async def test_a_command_over_its_rate_is_an_error_and_the_socket_goes_on(store: RunningStore) -> None:
    """A WebSocket's commands count as requests do; its subscriptions are held instead."""
    async with run_gateway(store.url, key_requests_s=FEW_S) as running:
        run = await running.create_run()
        async with open_socket(running) as socket:
            answer = await socket.ask("append", run_id=run["id"], events=[{"type": LOG[0], "data": LOG[1]}])
            assert answer["problem"]["code"] == "too_many_requests"
            assert answer["problem"]["retry_after_s"] >= 1
            assert (await socket.ask("ping"))["type"] == "pong"


async def test_commands_that_are_stored_together_count_one_by_one(store: RunningStore) -> None:
    """Whoever sends without waiting for answers gets no more than others do, and what is refused is not stored; nor is
    a turn kept that another could have."""
    rate_s, sent = 20, 200
    async with run_gateway(store.url, key_requests_s=rate_s) as running:
        run = await running.create_run()
        began_s = asyncio.get_running_loop().time()
        async with open_socket(running) as socket:
            event = {"type": LOG[0], "data": LOG[1]}
            for number in range(sent):
                await socket.send("append", id=f"n{number}", run_id=run["id"], events=[event])
            answers = [await socket.next() for _ in range(sent)]
            took_s = asyncio.get_running_loop().time() - began_s
            turns = running.gateway.services.limits.turns
            await wait_until(lambda: not turns._held.total())
        done = [answer for answer in answers if answer["type"] == "ack"]
        refusals = [answer["problem"] for answer in answers if answer["type"] == "error"]
        reasons = {(problem["code"], problem["limit"]) for problem in refusals}
        assert reasons == {("too_many_requests", "key_requests_s")}
        assert rate_s / 2 <= len(done) <= rate_s * (1 + took_s)
        async with open_client(running) as other:
            page = accepted(await other.get(f"/v1/runs/{run['id']}/events", params={"limit": 1_000}))
    assert sum(event["type"] == LOG[0] for event in page["data"]) == len(done)


async def test_bytes_that_are_stored_together_are_owed(store: RunningStore) -> None:
    """A group may be larger than what is left of a second, and whoever comes next waits for it."""
    async with run_gateway(store.url, key_bytes_s=20_000) as running:
        run = await running.create_run()
        async with open_socket(running) as socket:
            event = {"type": LOG[0], "data": {"level": "info", "message": "x" * 2_000}}
            for number in range(100):
                await socket.send("append", id=f"n{number}", run_id=run["id"], events=[event])
            answers = [await socket.next() for _ in range(100)]
            answers.append(await socket.ask("append", run_id=run["id"], events=[event]))
    assert answers[0]["type"] == "ack"
    assert answers[-1]["problem"]["limit"] == "key_bytes_s"
    assert answers[-1]["problem"]["retry_after_s"] >= 1


async def in_pieces(text: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a body in pieces, so that its request does not say how large it is."""
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def test_a_body_that_does_not_say_its_size_is_counted_as_it_comes(store: RunningStore) -> None:
    """It is owed as one that is announced: what comes next is refused."""
    event = {"type": "custom.bulk", "data": {"text": "x" * 100_000}}
    async with run_gateway(store.url, key_bytes_s=20_000) as running:
        path = f"/v1/runs/{(await running.create_run())['id']}/events"
        body = json.dumps({"events": [event]}).encode()
        sent = await running.client.post(path, content=in_pieces(body, 10_000))
        assert sent.is_success, sent.text
        problem = refused(await running.client.get("/v1/runs"), 429, "too_many_requests")
        assert problem["limit"] == "key_bytes_s"


async def test_a_file_that_does_not_say_its_size_is_read_no_faster_than_its_key_may_send(store: RunningStore) -> None:
    """Its sender waits within it, and nothing is refused."""
    rate_s, size = 50_000, 150_000
    async with run_gateway(store.url, key_bytes_s=rate_s) as running:
        began_s = asyncio.get_running_loop().time()
        sent = await running.client.post("/v1/files?name=a", content=in_pieces(b"x" * size, 10_000))
        took_s = asyncio.get_running_loop().time() - began_s
    assert sent.json()["size_bytes"] == size, sent.text
    # A second's worth may come at once.
    assert took_s > size / rate_s - 1.2


async def test_lines_that_have_begun_stay_under_the_ceiling_of_bodies(store: RunningStore) -> None:
    """Streamed appends by the dozen whose lines never end hold no more than all bodies may, and those that fit are
    served."""
    ceiling, begun = 1_048_576, 200_000
    line = json.dumps({"type": "custom.bulk", "data": {"text": "x" * begun}}).encode() + b"\n"
    async with run_gateway(store.url, bodies_bytes=ceiling) as running:
        path = f"/v1/runs/{(await running.create_run())['id']}/events"
        go_on = asyncio.Event()

        async def send() -> dict[str, Any]:
            async def body() -> AsyncIterator[bytes]:
                yield line[:begun]
                await go_on.wait()
                yield line[begun:]

            headers = {"content-type": "application/x-ndjson"}
            sent = await running.client.post(path, content=body(), headers=headers, timeout=60)
            answer: dict[str, Any] = json.loads(sent.text)
            return answer

        def refused_lines() -> float:
            return REGISTRY.get_sample_value("gateway_refused_total", {"reason": "bodies_bytes"}) or 0

        before, held = refused_lines(), running.gateway.services.limits.bodies
        sending = [asyncio.create_task(send()) for _ in range(12)]
        await wait_until(lambda: refused_lines() - before >= 12 - ceiling // begun)
        assert 0 < held._total <= ceiling
        go_on.set()
        answers = await asyncio.gather(*sending)
        await wait_until(lambda: held._total == 0)
    stored = [answer for answer in answers if "seq" in answer]
    assert 1 <= len(stored) <= ceiling // begun
    assert {answer["error"]["code"] for answer in answers if "error" in answer} == {"overloaded"}


async def test_a_streamed_append_is_read_no_faster_than_its_key_may_send(store: RunningStore) -> None:
    """It is not refused half-way: its sender waits, every line is stored, and no more comes in a second than may."""
    rate_s, lines = 50_000, 150
    line = json.dumps({"type": "custom.bulk", "data": {"text": "x" * 1_000}}).encode() + b"\n"
    async with run_gateway(store.url, key_bytes_s=rate_s) as running:
        path = f"/v1/runs/{(await running.create_run())['id']}/events"
        began_s = asyncio.get_running_loop().time()
        sent = await running.client.post(
            path, content=in_pieces(line * lines, 5_000), headers={"content-type": "application/x-ndjson"}
        )
        took_s = asyncio.get_running_loop().time() - began_s
    answers = [json.loads(answer) for answer in sent.text.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, lines + 1))
    assert all("seq" in answer for answer in answers)
    # A second's worth may come at once.
    assert took_s > len(line) * lines / rate_s - 1.2


async def test_a_socket_for_which_there_is_no_place_is_told_to_try_again(store: RunningStore) -> None:
    """1013 after the wait, and the place of one that closes is free again."""
    async with run_gateway(store.url, key_streams=1, store_hold_s=0.1) as running:
        async with open_socket(running) as first:
            await first.ask("ping")
            async with open_socket(running) as second:
                await second.connection.wait_closed()
                assert second.connection.close_code == 1013
        await wait_until(lambda: running.gateway._places._open == 0)


async def test_claims_wait_only_as_many_as_may(store: RunningStore) -> None:
    """One worker too many is told to come back; those that wait are not disturbed."""
    async with run_gateway(store.url, claims_waiting=1) as running:
        body = {"queues": ["q"], "wait_s": 20}
        waiting = asyncio.create_task(running.client.post("/v1/claims", json=body))
        await wait_until(lambda: running.gateway._bells._claims.total() == 1)
        refused(await running.client.post("/v1/claims", json=body), 429, "too_many_requests")
        await running.create_run(mode="queued", queue="q")
        assert len((await waiting).json()["data"]) == 1


async def test_a_body_for_which_there_is_no_memory_is_refused_for_now(store: RunningStore) -> None:
    """503 `overloaded`, nothing written, while others' bodies fill the ceiling; bodies that fit are taken."""
    async with run_gateway(store.url) as running:
        run = await running.create_run()
        ledger = running.gateway.services.limits.bodies
        ledger._wait_s = 0.05
        await ledger.take("others", ledger._most - 100)
        refused(await running.append(run["id"], ("log", {"level": "info", "message": "x" * 200})), 503, "overloaded")
        ledger.give_back("others", ledger._most - 100)
        assert (await running.append(run["id"], LOG)).status_code == 200
        await wait_until(lambda: ledger._total == 0)


async def test_a_tenant_that_floods_does_not_make_another_wait_behind_it(store: RunningStore) -> None:
    """Of hundreds of requests sent before, few are answered before the one of a tenant that is calm."""
    flood = 400
    async with run_gateway(store.url, requests_at_once=4) as running:
        async with run_gateway(store.url) as elsewhere:
            calm = elsewhere.key
        run = await running.create_run()
        answered: list[str] = []

        async def ask(who: str, key: str) -> None:
            async with open_stream(running, "/v1/runs?limit=1", key=key) as answer:
                assert answer.status == 200
                answered.append(who)

        held = [await running.gateway.services.limits.turns.enter(running.tenant) for _ in range(3)]
        floods = [asyncio.create_task(ask("flood", running.key)) for _ in range(flood)]
        await wait_until(lambda: sum(map(len, running.gateway.services.limits.turns._lines.values())) > flood // 2)
        before = len(answered)
        asking = asyncio.create_task(ask("calm", calm))
        for turn in held:
            running.gateway.services.limits.turns.leave(turn)
        await asyncio.wait_for(asking, 30)
        assert answered.index("calm") - before < flood // 4
        await asyncio.gather(*floods)
        assert (await running.client.get(f"/v1/runs/{run['id']}")).status_code == 200
