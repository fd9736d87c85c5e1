"""The store comes back older than it was: a backup restored, or a failover to a copy that lagged."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.scenarios.claims import check_all
from tests.support.copies import Copies
from tests.support.processes import GatewayProcess, lives, serving
from tests.support.readers import ClientReader, Reader, SseReader, WebSocketReader, read_up_to
from tests.support.running import wait_until
from tests.support.writers import Refused, Writer, create_run

pytestmark = pytest.mark.anyio

KEPT_BATCHES = 5
LOST_BATCHES = 5
BATCH = 10


async def write_again(writer: Writer, batches: list[list[str]]) -> None:
    """Append what the store has lost, from the number on that it expects."""
    with pytest.raises(Refused) as refused:
        await writer.append_marks(["w-ahead"])
    assert refused.value.problem["status"] == 409
    assert refused.value.problem["code"] == "writer_gap"
    expected = refused.value.problem["expected"]
    writer.number = expected - 1
    kept = sum(map(len, batches[: expected - 1]))
    for seq in [seq for seq, mark in writer.acknowledged.items() if int(mark.partition("-")[2]) > kept]:
        del writer.acknowledged[seq]
    for batch in batches[expected - 1 :]:
        await writer.append_marks(batch)


async def leave_at(gateway: GatewayProcess, run_id: str, seqs: list[int]) -> list[Reader]:
    """Return readers of each transport that have read up to each of these and are gone."""
    readers: list[Reader] = []
    for kind in (SseReader, WebSocketReader):
        for seq in seqs:
            reader = kind(gateway.url, gateway.key, run_id)
            await read_up_to(reader, seq)
            readers.append(reader)
    return readers


@pytest.mark.parametrize("written_again", [False, True], ids=["shorter_log", "other_log"])
async def test_every_reader_that_returns_to_an_older_store_is_told(data_dir: Path, written_again: bool) -> None:
    """A reader that has what the log has lost gets a reset, whether or not the log has grown past it again;
    one that stands below the loss goes on without."""
    copies = Copies(data_dir)
    batches = [[f"w-{10 * i + j}" for j in range(1, BATCH + 1)] for i in range(KEPT_BATCHES + LOST_BATCHES)]
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(serving(data_dir))
        client = await stack.enter_async_context(gateway.client())
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w")
        for batch in batches[:KEPT_BATCHES]:
            await writer.append_marks(batch)
        kept = max(writer.acknowledged)
        assert await gateway.stop() == 0
        copies.take()

        await gateway.start()
        for batch in batches[KEPT_BATCHES:]:
            await writer.append_marks(batch)
        head = max(writer.acknowledged)
        below = await leave_at(gateway, run_id, [1, kept - 1, kept])
        beyond = await leave_at(gateway, run_id, [kept + 1, head - 1, head])
        assert await gateway.stop() == 0
        copies.restore()

        await gateway.start()
        if written_again:
            await write_again(writer, batches)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for reader in (*below, *beyond):
                tasks.create_task(reader.run())
            if not written_again:
                await wait_until(lambda: all(reader.transcript.told("stream.reset") for reader in beyond))
                await write_again(writer, batches)
            await writer.complete()

        transcripts = [reader.transcript for reader in (*below, *beyond)]
        assert await check_all(client, run_id, [writer], transcripts) == head + 1
        assert not any(reader.transcript.told("stream.reset") for reader in below)
        for reader in beyond:
            (reset,) = reader.transcript.told("stream.reset")
            assert reset["reason"] == ("log_changed" if written_again else "ahead_of_log")
            assert reset["valid_through"] <= kept


async def test_readers_that_stay_are_told_of_a_rollback(data_dir: Path) -> None:
    """When the store falls back under a living gateway, connected readers get a reset and then what is true."""
    copies = Copies(data_dir)
    batches = [[f"w-{10 * i + j}" for j in range(1, BATCH + 1)] for i in range(KEPT_BATCHES + LOST_BATCHES)]
    async with serving(data_dir) as gateway, gateway.client() as client:
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w")
        readers: list[Reader] = [
            SseReader(gateway.url, gateway.key, run_id, silence_s=30),
            WebSocketReader(gateway.url, gateway.key, run_id, silence_s=30),
            ClientReader(gateway.url, gateway.key, run_id, silence_s=30),
        ]
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for reader in readers:
                tasks.create_task(reader.run())
            for batch in batches[:KEPT_BATCHES]:
                await writer.append_marks(batch)
            copies.take()
            kept = max(writer.acknowledged)
            for batch in batches[KEPT_BATCHES:]:
                await writer.append_marks(batch)
            for reader in readers:
                await reader.transcript.reaches(max(writer.acknowledged))
            await fall_back(gateway, copies)
            await write_again(writer, batches)
            await writer.complete()
        await check_all(client, run_id, [writer], [reader.transcript for reader in readers])
        assert [reader.attempts for reader in readers if not isinstance(reader, ClientReader)] == [1, 1]
        for reader in readers:
            (reset,) = reader.transcript.told("stream.reset")
            assert (reset["reason"], reset["valid_through"]) == ("rolled_back", kept)


async def fall_back(gateway: GatewayProcess, copies: Copies) -> None:
    """Kill the store and put an older state in its place before the gateway can start another."""
    store = gateway.store()
    gateway.signal(signal.SIGSTOP)
    try:
        store.kill()
        await wait_until(lambda: not lives(store))
        copies.restore()
    finally:
        gateway.signal(signal.SIGCONT)
