"""The client's files: from and to wherever they are, across broken connections, never whole in memory."""

from __future__ import annotations

import asyncio
import io
import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from gateway.client import Client, ConnectionLost, FileDamaged, InvalidBody, InvalidState, NotFound, Run, SourceChanged
from tests.client.waits import SOON
from tests.support.proxy import Cut, Dooms, Fate, lay_proxy
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

CONTENT = os.urandom(3_000_000)
MIB = 1024 * 1024


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    """Yield them."""
    for piece in given:
        yield piece


async def fetch(client: Client, file_id: str) -> bytes:
    """Return a file's bytes."""
    return b"".join([piece async for piece in client.files.read(file_id)])


async def test_a_path_is_sent_and_saved(client: Client, tmp_path: Path) -> None:
    """Under its own name and the type that this suggests."""
    source, target = tmp_path / "report.pdf", tmp_path / "copy.pdf"
    source.write_bytes(CONTENT)
    file = await client.files.upload(source)
    assert (file.name, file.content_type, file.size_bytes) == ("report.pdf", "application/pdf", len(CONTENT))
    assert await client.files.download(file.file_id, target) == target
    assert target.read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == ["copy.pdf", "report.pdf"]
    assert (await client.files.upload(str(source), name="other", content_type="a/b")).name == "other"


async def test_bytes_streams_and_iterators_are_sent(client: Client, tmp_path: Path) -> None:
    """An open file from where it stands."""
    path = tmp_path / "open.bin"
    path.write_bytes(CONTENT)
    reading, writing = os.pipe()
    os.write(writing, CONTENT[:1000])
    os.close(writing)
    with path.open("rb") as opened, os.fdopen(reading, "rb") as pipe:
        opened.seek(10)
        file = await client.files.upload(opened)
        assert (file.name, await fetch(client, file.file_id)) == ("open.bin", CONTENT[10:])
        file = await client.files.upload(pipe, name="pipe")
        assert await fetch(client, file.file_id) == CONTENT[:1000]
    for source in (CONTENT, io.BytesIO(CONTENT), pieces(CONTENT[:7], b"", CONTENT[7:])):
        file = await client.files.upload(source, name="x")
        assert (file.content_type, await fetch(client, file.file_id)) == ("application/octet-stream", CONTENT)


async def test_an_empty_file_comes_back_empty(client: Client, tmp_path: Path) -> None:
    """It is a file all the same."""
    file = await client.files.upload(b"", name="empty")
    assert await fetch(client, file.file_id) == b""
    assert (await client.files.download(file.file_id, tmp_path / "x")).read_bytes() == b""


async def test_a_file_that_is_no_path_needs_a_name(client: Client) -> None:
    """Nothing is sent without."""
    with pytest.raises(ValueError, match="needs a name"):
        await client.files.upload(b"x")


async def test_a_run_has_its_files(client: Client) -> None:
    """What it takes in, what it makes, and where each is announced."""
    given = await client.files.upload(b"x", name="in.txt")
    run = await client.runs.create("tester", file_ids=[given.file_id])
    assert run.file_ids == [given.file_id]
    made = await client.runs.upload(run.id, CONTENT, name="out.txt", step_id="s1")
    assert (made.run_id, made.content_type) == (run.id, "text/plain")
    events = [event async for event in client.runs.log(run.id, types=["file.created"])]
    assert [getattr(event, "seq", None) for event in events] == [made.seq]
    assert [file.file_id async for file in client.files.list(run_id=run.id)] == [made.file_id]
    listed = [file.file_id async for file in client.files.list(page_files=1)]
    assert {given.file_id, made.file_id} <= set(listed)


async def test_the_url_of_a_file_opens_it(client: Client) -> None:
    """Without a key."""
    file = await client.files.get((await client.files.upload(CONTENT, name="x")).file_id)
    assert file.url is not None
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(file.url)).content == CONTENT


async def test_a_deleted_file_is_gone(client: Client) -> None:
    """Told as any other refusal."""
    file = await client.files.upload(b"x", name="x")
    await client.files.delete(file.file_id)
    for attempt in (client.files.get(file.file_id), client.files.delete(file.file_id), fetch(client, file.file_id)):
        with pytest.raises(NotFound):
            await attempt


async def test_refusals_are_told_and_leave_no_file(client: Client, run: Run, tmp_path: Path) -> None:
    """A bad name, a run that has ended, a download that cannot be."""
    with pytest.raises(InvalidBody):
        await client.files.upload(b"x", name="a/b")
    await client.runs.cancel(run.id)
    with pytest.raises(InvalidState):
        await client.runs.upload(run.id, CONTENT, name="x")
    with pytest.raises(NotFound):
        await client.files.download("01J00000000000000000000000", tmp_path / "x")
    assert os.listdir(tmp_path) == []


async def test_a_file_that_shrinks_while_it_is_sent_is_not_kept(client: Client, tmp_path: Path) -> None:
    """Half of it is not what was meant."""
    path = tmp_path / "shrinking"
    path.write_bytes(CONTENT)

    class Shrinking(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            os.truncate(path, 600_000)
            return super().read(-1 if size is None else size) or b""

    before = [file.file_id async for file in client.files.list()]
    with Shrinking(path) as source, pytest.raises(SourceChanged):
        await client.files.upload(source)
    assert [file.file_id async for file in client.files.list()] == before


async def test_a_download_goes_on_where_it_broke(gateway: RunningGateway, client: Client, tmp_path: Path) -> None:
    """Across many cuts the file is the same, and hardly more than it was sent."""
    content = os.urandom(20 * MIB)
    file = await client.files.upload(content, name="large")
    dooms = Dooms(7, cuts=12, most_bytes=4 * MIB, most_s=5, black_holes=0)
    async with (
        asyncio.timeout(60),
        lay_proxy(gateway.port, choose=dooms) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
    ):
        path = await shaky.files.download(file.file_id, tmp_path / "x")
    assert path.read_bytes() == content
    assert proxy.cuts.total() > 3


async def test_a_file_that_was_damaged_where_it_is_kept_is_not_saved(
    gateway: RunningGateway, client: Client, tmp_path: Path
) -> None:
    """A disk that lies is found out by whoever fetches; nothing is left where the file should be."""
    file = await client.files.upload(CONTENT, name="damaged")
    (blob,) = [path for path in (gateway.data_dir / "files").rglob("*") if file.file_id in path.name]
    with blob.open("r+b") as stored:
        stored.seek(1_000_000)
        stored.write(b"other bytes")
    with pytest.raises(FileDamaged, match=file.file_id):
        await client.files.download(file.file_id, tmp_path / "copy")
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_an_upload_survives_a_shaky_connection(gateway: RunningGateway, client: Client, run: Run) -> None:
    """Lost answers make no second file and no second event."""
    dooms = Dooms(11, cuts=10, most_bytes=2_000, most_s=0.05, black_holes=0)
    async with (
        asyncio.timeout(60),
        lay_proxy(gateway.port, choose=dooms) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
    ):
        made = [await shaky.runs.upload(run.id, CONTENT, name=f"{n}") for n in range(10)]
    assert proxy.cuts.total() > 5
    listed = [file.file_id async for file in client.files.list(run_id=run.id)]
    assert sorted(listed) == sorted(file.file_id for file in made)
    events = [event async for event in client.runs.log(run.id, types=["file.created"])]
    assert len(events) == 10
    assert await fetch(client, made[0].file_id) == CONTENT


async def test_what_can_be_read_only_once_is_sent_only_once(gateway: RunningGateway) -> None:
    """A second time it would be another file."""
    opened = 0

    async def once() -> AsyncIterator[bytes]:
        nonlocal opened
        opened += 1
        yield CONTENT

    async with (
        lay_proxy(gateway.port, choose=lambda _: Fate(Cut.RESET, after_bytes=1)) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
    ):
        with pytest.raises(ConnectionLost):
            await shaky.files.upload(once(), name="x")
    assert (opened, proxy.connections) == (1, 1)


async def test_patience_ends_a_download(gateway: RunningGateway, client: Client, tmp_path: Path) -> None:
    """Nothing of it is left."""
    file = await client.files.upload(CONTENT, name="x")
    async with (
        lay_proxy(gateway.port, choose=lambda _: Fate(Cut.RESET, after_bytes=0)) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
    ):
        with pytest.raises(ConnectionLost):
            await shaky.files.download(file.file_id, tmp_path / "x", patience_s=0.3)
        assert proxy.connections > 1
    assert os.listdir(tmp_path) == []


async def test_a_reader_may_leave_early(client: Client) -> None:
    """Its connection is closed, and the client goes on."""
    file = await client.files.upload(CONTENT, name="x")
    async with aclosing(client.files.read(file.file_id)) as content:
        assert (await anext(content))[:100] == CONTENT[:100]
    assert await fetch(client, file.file_id) == CONTENT


async def test_files_are_never_whole_in_memory(client: Client, tmp_path: Path) -> None:
    """Neither what is sent nor what is saved: 40 MiB pass through little."""
    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(40 * MIB)
    tracemalloc.start()
    try:
        file = await client.files.upload(path)
        await client.files.download(file.file_id, tmp_path / "copy")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The gateway's share of this process is in it.
    assert peak_bytes < 16 * MIB
