"""Files through crashes, races and time: never a record without its bytes, never bytes that stay for nobody."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ulid import ULID

from gateway.domain.files import FileRecord
from gateway.domain.run import Actor
from gateway.errors import NotFound
from gateway.service.file_sweep import FileSweep
from gateway.service.shelf import Bytes, Shelf
from gateway.store.blobs import Blobs, open_blobs
from gateway.store.clock import StoreClock
from gateway.store.files import FileStore
from gateway.store.indexes import IndexStore
from gateway.store.link import Link
from gateway.store.runs import Limits, RunStore
from tests.service.test_crashes import counting, ready
from tests.support.buckets import RunningBucket, run_bucket
from tests.support.choke import Choke, open_choke
from tests.support.links import Door, connect, make_spec
from tests.support.native import accepted, act, get_types, refused
from tests.support.running import COMPLETE, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

CONTENT = b"some bytes" * 1_000
Send = Callable[[RunningGateway, str, str], Awaitable[httpx.Response]]


async def upload(api: RunningGateway, _run_id: str, key: str) -> httpx.Response:
    """Send a file of the tenant."""
    return await api.client.post("/v1/files?name=x", content=CONTENT, headers={"idempotency-key": key})


async def output(api: RunningGateway, run_id: str, key: str) -> httpx.Response:
    """Send a file that a run made."""
    path = f"/v1/runs/{run_id}/files?name=x"
    return await api.client.post(path, content=CONTENT, headers={"idempotency-key": key})


async def delete(api: RunningGateway, run_id: str, key: str) -> httpx.Response:
    """Send a file of the tenant, and delete it."""
    sent = await upload(api, run_id, key)
    return sent if sent.status_code != 201 else await api.client.delete(f"/v1/files/{sent.json()['file_id']}")


def bytes_in(data_dir: Path) -> list[Path]:
    """Return what is kept of files, finished or not."""
    return [path for path in (data_dir / "files").rglob("*") if path.is_file()]


# --- The store is lost at every step


@pytest.fixture(scope="module")
async def choke(store: RunningStore, anyio_backend: object) -> AsyncIterator[Choke]:
    """A relay before the store."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with open_choke(store.url, Path(folder)) as choke:
            yield choke


@pytest.fixture(scope="module")
async def api(choke: Choke) -> AsyncIterator[RunningGateway]:
    """A gateway behind the relay."""
    async with run_gateway(choke.url) as running:
        yield running


@pytest.fixture(scope="module")
async def witness(store: RunningStore, api: RunningGateway) -> AsyncIterator[RunningGateway]:
    """A gateway of the same tenant and directory whose store is never away."""
    async with run_gateway(store.url, tenant=api.tenant, data_dir=api.data_dir) as running:
        yield running


@pytest.mark.parametrize("executed", [False, True], ids=["lost", "answer lost"])
@pytest.mark.parametrize("send", [upload, output, delete])
async def test_a_file_that_is_cut_is_there_or_not_and_can_be_sent_again(
    choke: Choke, api: RunningGateway, witness: RunningGateway, send: Send, executed: bool
) -> None:
    """At whatever step the store is lost: what is listed has its bytes, and the repeat makes one file of it."""
    for step in range(20):
        run, key = await witness.run_in("running"), str(ULID())
        await ready(api)
        choke.arm(step, executed=executed, counts=counting(api.tenant))
        answer = await send(api, run["id"], key)
        cut = choke.sprung
        choke.disarm()
        if answer.status_code not in (200, 201):
            refused(answer, 503, "store_unavailable")
        await check_listed(witness)
        await ready(api)
        again = await send(api, run["id"], key)
        if send is delete:
            assert again.status_code in (200, 404), again.text
        else:
            file = accepted(again, 201)
            assert accepted(await send(api, run["id"], key), 201) == file
        listed = await check_listed(witness)
        assert [f["file_id"] for f in listed if f["run_id"] == run["id"]] == (
            [file["file_id"]] if send is output else []
        )
        assert (await get_types(witness, run["id"])).count("file.created") == (send is output)
        if not cut:
            return
    pytest.fail("it has fewer than twenty steps")


async def check_listed(witness: RunningGateway) -> list[dict[str, Any]]:
    """Return the newest files; each has its bytes."""
    listed: list[dict[str, Any]] = accepted(await witness.client.get("/v1/files?limit=5"))["data"]
    for file in listed:
        answer = await witness.client.get(f"/v1/files/{file['file_id']}/content")
        assert answer.content == CONTENT
    return listed


# --- Parts of a gateway, over a place of their own


class Place:
    """A shelf, and the sweep that keeps it clean."""

    def __init__(self, link: Link, blobs: Blobs, *, secret: bytes = b"secret", **limits: Any) -> None:
        async def read_secret() -> bytes:
            return secret

        self.tenant = f"t{ULID()}"
        self.records, self.blobs = FileStore(link, link), blobs
        self.indexes = IndexStore(link, link, feed_entries=10)
        self.runs = RunStore(link, link, Limits())
        self.clock = StoreClock()
        self.shelf = Shelf(self.records, blobs, self.indexes, secret=read_secret, mark_ms=60_000)
        self.sweep = FileSweep(
            self.shelf,
            self.records,
            blobs,
            self.indexes,
            self.runs,
            self.clock,
            **{"retention_ms": 3_600_000, **limits},
        )

    async def put(self, *, age_ms: int = 0, run_id: str | None = None, content: bytes = CONTENT) -> FileRecord:
        """Store a file as if it had been sent a while ago."""

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        at_ms = self.clock.now_ms() - age_ms
        coming, file_id = Bytes(chunks(), 10**9), str(ULID.from_timestamp(at_ms / 1000))
        record = FileRecord(
            file_id=file_id,
            tenant=self.tenant,
            blob=await self.shelf.write(self.tenant, file_id, coming),
            name="x",
            size_bytes=coming.size_bytes,
            content_type="text/plain",
            sha256=coming.sha256,
            created_ms=at_ms,
            created_by=Actor("key"),
            run_id=run_id,
            agent_id=None if run_id is None else "tester",
        )
        assert await self.shelf.enter(record) == record
        return record

    async def has(self, record: FileRecord) -> bool:
        """Return whether a file is there; its record and its bytes are there together."""
        (found,) = await self.shelf.find(self.tenant, [record.file_id])
        folder = await self.shelf.folder(self.tenant)
        kept = [name async for name, _ in self.blobs.list(folder)]
        assert (found is not None) == (record.blob in kept)
        return found is not None


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection of the test's own."""
    async with connect(store.url) as link:
        yield link


@pytest.fixture
def own_store() -> Iterator[RunningStore]:
    """A store whose tenants no other gateway looks after."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        running = RunningStore(Path(folder))
        running.start()
        yield running
        running.stop()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBucket]:
    """A server that speaks S3."""
    with run_bucket(tmp_path_factory.mktemp("bucket")) as running:
        yield running


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Each place that files may be kept in."""
    if request.param == "local":
        return open_blobs(None, tmp_path)
    bucket: RunningBucket = request.getfixturevalue("bucket")
    return open_blobs(f"{bucket.url}/{ULID()}", tmp_path)


# --- Time


async def test_uploaded_files_end_at_their_age(link: Link, blobs: Blobs) -> None:
    """Younger ones stay; any number of old ones goes."""
    place = Place(link, blobs)
    old = [await place.put(age_ms=3_600_000 + n) for n in (10, 2_000, 10**9)]
    young = [await place.put(age_ms=age_ms) for age_ms in (0, 3_590_000)]
    await place.sweep.sweep()
    assert [await place.has(record) for record in old + young] == [False] * 3 + [True] * 2
    assert await place.records.newest(place.tenant, None, None, 10) == [record.file_id for record in young]


async def test_outputs_do_not_age_while_their_run_is_there(link: Link, blobs: Blobs) -> None:
    """What a crash left of a run that is gone does."""
    place = Place(link, blobs)
    door = Door(link, make_spec(place.tenant))
    await door.create()
    alive = await place.put(age_ms=10**9, run_id=door.spec.id)
    orphan = await place.put(age_ms=10**9, run_id=str(ULID()))
    for _ in range(2):
        await place.sweep.sweep()
        assert (await place.has(alive), await place.has(orphan)) == (True, False)


async def test_bytes_that_no_record_names_are_removed_after_a_while(link: Link, blobs: Blobs) -> None:
    """Those of a repeat that lost too; what a record names stays, however old its bytes are."""
    place = Place(link, blobs, forgotten_ms=-60_000)
    record, taken = await place.put(), await place.put()
    await place.records.remove(place.tenant, taken.file_id, None)
    folder = await place.shelf.folder(place.tenant)
    extra = f"{folder}/{record.file_id}-00000000"

    async def some() -> AsyncIterator[bytes]:
        yield b"x"

    await blobs.write(extra, some())
    await place.sweep.sweep()
    assert await place.has(record)
    assert [name async for name, _ in blobs.list(folder)] == [record.blob]


async def test_young_bytes_are_let_be(link: Link, blobs: Blobs) -> None:
    """Their record may be about to be written."""
    place = Place(link, blobs)
    record = await place.put()
    await place.records.remove(place.tenant, record.file_id, None)
    await place.sweep.sweep()
    assert [name async for name, _ in blobs.list(await place.shelf.folder(place.tenant))] == [record.blob]


async def test_one_process_at_a_time_looks_for_forgotten_bytes(link: Link, tmp_path: Path) -> None:
    """To list a bucket is to pay for it."""
    blobs = open_blobs(None, tmp_path)
    one = Place(link, blobs, forgotten_ms=-60_000)
    await one.put()
    await one.sweep.sweep()
    forgotten = await one.put()
    await one.records.remove(one.tenant, forgotten.file_id, None)
    await one.sweep.sweep()
    assert (tmp_path / "files" / forgotten.blob).exists()


async def test_another_stores_files_in_the_same_place_are_let_be(link: Link, blobs: Blobs) -> None:
    """Two gateways that share a bucket by mistake, with tenants of the same name, do each other no harm."""
    mine, theirs = Place(link, blobs, forgotten_ms=-60_000), Place(link, blobs, secret=b"other")
    theirs.tenant = mine.tenant
    record = await theirs.put()
    await mine.records.remove(mine.tenant, record.file_id, None)
    await mine.sweep.sweep()
    assert [name async for name, _ in blobs.list(await theirs.shelf.folder(theirs.tenant))] == [record.blob]


async def test_a_running_gateway_sweeps_by_itself(own_store: RunningStore) -> None:
    """Files that are too old when it starts are gone soon; a half-written one of a process that died, too."""
    async with run_gateway(own_store.url) as before:
        file = accepted(await upload(before, "", "k"), 201)
        half = before.data_dir / "files" / "incoming" / "half"
        half.write_bytes(b"x")
        os.utime(half, (1_000_000, 1_000_000))

        def age() -> int:
            return before.gateway.clock.now_ms() - ULID.from_str(file["file_id"]).milliseconds

        await wait_until(lambda: age() > 1_000)
        async with run_gateway(
            own_store.url, tenant=before.tenant, data_dir=before.data_dir, file_retention_s=1
        ) as after:

            async def is_gone() -> bool:
                return (await after.client.get(f"/v1/files/{file['file_id']}")).status_code == 404

            await wait_until(is_gone)
        assert bytes_in(before.data_dir) == []


# --- Runs that are removed


async def test_what_a_dead_process_left_of_a_removed_run_is_finished(own_store: RunningStore) -> None:
    """Its record was removed and its files not: whoever finds the note of it removes them."""
    async with run_gateway(own_store.url) as api:
        run = await api.run_in("running")
        file = accepted(await output(api, run["id"], "k"), 201)
        accepted(await api.append(run["id"], COMPLETE))
        runs, indexes = api.gateway.stores.runs, api.gateway.stores.indexes
        change_id = await indexes.begin_change(api.tenant, run["id"], 0)
        await runs.remove(await runs.load(run["id"], api.tenant))
        accepted(await api.client.get(f"/v1/files/{file['file_id']}"))

        async def is_gone() -> bool:
            return (await api.client.get(f"/v1/files/{file['file_id']}")).status_code == 404

        async def is_finished() -> bool:
            return change_id not in [note.change_id for note in await indexes.stuck_changes(api.tenant, 1)]

        await wait_until(is_gone)
        await wait_until(lambda: bytes_in(api.data_dir) == [])

        await wait_until(is_finished)


async def test_a_run_with_many_files_is_removed_whole(store: RunningStore) -> None:
    """More of them than are removed at once."""
    async with run_gateway(store.url) as api:
        run = await api.run_in("running")
        for batch in range(11):
            await asyncio.gather(*(output(api, run["id"], f"{batch}-{n}") for n in range(10)))
        assert len(bytes_in(api.data_dir)) == 110
        accepted(await api.append(run["id"], COMPLETE))
        accepted(await act(api, run["id"], "purge"))
        assert bytes_in(api.data_dir) == []
        assert accepted(await api.client.get("/v1/files"))["data"] == []


# --- Races


async def test_a_refused_request_does_not_take_back_what_another_answers_for(link: Link, tmp_path: Path) -> None:
    """Two requests under one key: the first is refused after the second has begun to append the same file."""
    place = Place(link, open_blobs(None, tmp_path))
    record = await place.put(run_id=str(ULID()))
    shared = await place.shelf.share(record)
    assert shared is not None
    assert await place.shelf.share(record) == await place.shelf.share(shared) == shared
    await place.shelf.take_back(record)
    assert await place.has(record)


async def test_nobody_answers_for_what_was_taken_back(link: Link, tmp_path: Path) -> None:
    """The second comes too late: it is told so, and tries again."""
    place = Place(link, open_blobs(None, tmp_path))
    record = await place.put(run_id=str(ULID()))
    await place.shelf.take_back(record)
    assert await place.shelf.share(record) is None
    assert not await place.has(record)


async def test_bytes_of_a_file_that_was_deleted_meanwhile_are_dropped(link: Link, tmp_path: Path) -> None:
    """Its record is not written again."""
    place = Place(link, open_blobs(None, tmp_path))
    record = await place.put()
    await place.shelf.delete(record)
    with pytest.raises(NotFound):
        await place.shelf.enter(record)
    assert bytes_in(tmp_path) == []


# --- A bucket behind a gateway


async def test_a_gateway_with_a_bucket_serves_files_as_any_other(store: RunningStore, bucket: RunningBucket) -> None:
    """Sent, announced, fetched in part, opened by its URL, deleted; nothing is in its data directory."""
    content = bytes(range(256)) * 100_000
    async with run_gateway(store.url, files_url=f"{bucket.url}/whole") as api:
        run = await api.create_run()
        answer = await api.client.post(f"/v1/runs/{run['id']}/files?name=x", content=content)
        path = f"/v1/files/{accepted(answer, 201)['file_id']}"
        assert (await api.client.get(f"{path}/content")).content == content
        part = await api.client.get(f"{path}/content", headers={"range": "bytes=9000000-17000000"})
        assert part.content == content[9_000_000:17_000_001]
        async with httpx.AsyncClient() as nobody:
            assert (await nobody.get(accepted(await api.client.get(path))["url"])).content == content
        assert "whole/" in bucket.objects()
        assert bytes_in(api.data_dir) == []
        accepted(await api.client.delete(path))
        assert "whole/" not in bucket.objects()


async def test_a_bucket_that_is_away_costs_no_more_than_its_files(store: RunningStore, tmp_path: Path) -> None:
    """Sending and fetching are 503, not written; everything else works, deleting too."""
    with run_bucket(tmp_path) as bucket:
        async with run_gateway(store.url, files_url=bucket.url) as api:
            file = accepted(await upload(api, "", "k"), 201)
            bucket.stop()
            problem = refused(await upload(api, "", "other"), 503, "store_unavailable")
            assert problem["outcome"] == "not_written"
            refused(await api.client.get(f"/v1/files/{file['file_id']}/content"), 503, "store_unavailable")
            assert (await api.client.get("/readyz")).status_code == 200
            assert len(accepted(await api.client.get("/v1/files"))["data"]) == 1
            accepted(await api.client.delete(f"/v1/files/{file['file_id']}"))
