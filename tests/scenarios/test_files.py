"""Large files through a gateway's process: in bounded memory, and whole or not at all when it is killed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.buckets import run_bucket
from tests.support.processes import GatewayProcess, serving
from tests.support.running import wait_until
from tests.support.writers import create_run

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
FILE_MIB = 200
GROWTH_MIB = 48
"""A piece, a part or two of a bucket's, and what the allocator keeps: far below the file."""
PIECE = bytes(range(256)) * (MIB // 256)


async def pieces(digest: Any, mib: int) -> AsyncIterator[bytes]:
    """Yield a body of `mib` MiB, each MiB of it another."""
    for number in range(mib):
        piece = number.to_bytes(8, "big") + PIECE[8:]
        digest.update(piece)
        yield piece


class MemoryWatch:
    """The most memory that a process has had while watched, beyond what it began with."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._began_bytes = self._peak_bytes = self._process.memory_info().rss

    async def watch(self) -> None:
        """Look often; for ever."""
        while True:
            self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)
            await asyncio.sleep(0.005)

    @property
    def growth_mib(self) -> float:
        """How much it grew at most."""
        return (self._peak_bytes - self._began_bytes) / MIB


async def send_and_fetch(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Send a large file and fetch it again; it is the same."""
    sent, fetched = hashlib.sha256(), hashlib.sha256()
    answer = await client.post(path, params={"name": "large"}, content=pieces(sent, FILE_MIB), timeout=120)
    assert answer.status_code == 201, answer.text
    file: dict[str, Any] = answer.json()
    assert (file["size_bytes"], file["sha256"]) == (FILE_MIB * MIB, sent.hexdigest())
    async with client.stream("GET", f"/v1/files/{file['file_id']}/content") as content:
        assert content.headers["content-length"] == str(FILE_MIB * MIB)
        async for chunk in content.aiter_bytes(MIB):
            fetched.update(chunk)
    assert fetched.hexdigest() == sent.hexdigest()
    return file


@pytest.mark.parametrize("place", ["directory", "bucket"])
async def test_a_large_file_takes_little_memory(data_dir: Path, tmp_path: Path, place: str) -> None:
    """Of the serving process, both ways, whatever the size of the file."""
    with run_bucket(tmp_path) as bucket:
        settings: dict[str, Any] = {"files_url": bucket.url} if place == "bucket" else {}
        async with serving(data_dir, **settings) as gateway, gateway.client() as client:
            small = await client.post("/v1/files?name=small", content=pieces(hashlib.sha256(), 20))
            await client.get(f"/v1/files/{small.json()['file_id']}/content")
            memory = MemoryWatch(gateway.pid)
            watching = asyncio.create_task(memory.watch())
            await send_and_fetch(client, "/v1/files")
            watching.cancel()
            assert memory.growth_mib < GROWTH_MIB


async def test_slow_readers_of_a_large_file_take_little_memory(data_dir: Path) -> None:
    """Ten of them that take a little and then nothing."""
    async with serving(data_dir) as gateway, gateway.client() as client:
        answer = await client.post("/v1/files?name=large", content=pieces(hashlib.sha256(), 50))
        path = f"/v1/files/{answer.json()['file_id']}/content"
        memory = MemoryWatch(gateway.pid)
        watching = asyncio.create_task(memory.watch())
        opened = [client.build_request("GET", path) for _ in range(10)]
        streams = [await client.send(request, stream=True) for request in opened]
        for stream in streams:
            await anext(stream.aiter_raw(MIB))
        # The others stand still meanwhile.
        await send_and_fetch(client, "/v1/files")
        for stream in streams:
            await stream.aclose()
        watching.cancel()
        assert memory.growth_mib < GROWTH_MIB


async def test_an_upload_is_whole_or_not_at_all_when_the_gateway_is_killed(data_dir: Path) -> None:
    """Killed within it, the next gateway lists nothing; the file can be sent under the same key then."""
    async with serving(data_dir) as gateway, gateway.client() as client:
        reached, killed = asyncio.Event(), asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield PIECE
            reached.set()
            await killed.wait()
            yield PIECE

        run_id = await create_run(client)
        path, headers = f"/v1/runs/{run_id}/files?name=x", {"idempotency-key": "k"}
        sending = asyncio.create_task(client.post(path, content=half(), headers=headers))
        await reached.wait()
        await wait_until(lambda: len(incoming(gateway)) == 1)
        await gateway.kill()
        killed.set()
        with pytest.raises(httpx.TransportError):
            await sending
        await gateway.start()
        assert (await client.get("/v1/files")).json()["data"] == []
        assert (await client.get(f"/v1/runs/{run_id}/files")).json()["data"] == []
        sent = await client.post(path, content=b"whole", headers=headers)
        assert sent.status_code == 201, sent.text
        (listed,) = (await client.get("/v1/files")).json()["data"]
        assert listed["file_id"] == sent.json()["file_id"]


def incoming(gateway: GatewayProcess) -> list[Path]:
    """Return what is being written."""
    return list((gateway.data_dir / "files" / "incoming").glob("*"))


async def test_an_output_is_there_after_a_kill(data_dir: Path) -> None:
    """What was acknowledged: its event, its record, its bytes, and the URL that was given for it."""
    async with serving(data_dir, workers=2) as gateway, gateway.client() as client:
        run_id = await create_run(client)
        sent = (await client.post(f"/v1/runs/{run_id}/files?name=x", content=PIECE)).json()
        path = f"/v1/files/{sent['file_id']}"
        url = (await client.get(path)).json()["url"]
        await gateway.kill()
        await gateway.start()
        (named,) = (await client.get(f"/v1/runs/{run_id}/files")).json()["data"]
        assert (named["file_id"], named["size_bytes"]) == (sent["file_id"], len(PIECE))
        assert (await client.get(f"{path}/content")).content == PIECE
        async with httpx.AsyncClient() as nobody:
            assert (await nobody.get(url)).content == PIECE
