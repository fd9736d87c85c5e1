"""Blobs: whole or not at all, in a directory as in a bucket."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ulid import ULID

from gateway.errors import StoreUnavailable, TooLarge
from gateway.store.blobs import Blobs, open_blobs
from gateway.store.blobs.local import LocalBlobs
from gateway.store.blobs.s3 import PART_BYTES, S3Blobs
from tests.support.buckets import RunningBucket, run_bucket
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

PIECE = bytes(range(256)) * 4096
LARGE = 2 * PART_BYTES // len(PIECE) + 3
"""Pieces of a blob that a bucket takes in several parts."""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBucket]:
    """A server that speaks S3."""
    with run_bucket(tmp_path_factory.mktemp("bucket")) as running:
        yield running


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Each place that blobs may be kept in, with an awkward path."""
    if request.param == "local":
        return open_blobs(f"file://{tmp_path}/with%20space/deep", tmp_path)
    bucket: RunningBucket = request.getfixturevalue("bucket")
    return open_blobs(f"{bucket.url}/{ULID()}", tmp_path)


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    """Yield them."""
    for piece in given:
        yield piece


async def read(blobs: Blobs, name: str, start: int, stop: int) -> bytes:
    """Return a part of a blob."""
    return b"".join([piece async for piece in await blobs.open(name, start, stop)])


async def names(blobs: Blobs, folder: str = "f") -> list[str]:
    """Return what is listed."""
    return sorted([name async for name, _ in blobs.list(folder)])


@pytest.mark.parametrize("count", [0, 1, LARGE])
async def test_a_blob_is_read_as_it_was_written(blobs: Blobs, count: int) -> None:
    """None at all, little, and more than is sent at once; whole, and any part of it."""
    await blobs.write("f/a", pieces(*[PIECE] * count))
    size = count * len(PIECE)
    assert await read(blobs, "f/a", 0, size) == PIECE * count
    if size:
        assert await read(blobs, "f/a", 5, 9) == PIECE[5:9]
        assert await read(blobs, "f/a", size - 3, size) == PIECE[-3:]
        assert await read(blobs, "f/a", 7, size - 7) == (PIECE * count)[7:-7]


async def test_blobs_are_listed_by_folder_with_their_time(blobs: Blobs) -> None:
    """Of a folder that is not there nothing is."""
    now_ms = time.time() * 1000
    for name in ("f/a", "f/b", "g/c"):
        await blobs.write(name, pieces(b"x"))
    assert await names(blobs) == ["f/a", "f/b"]
    assert await names(blobs, "none") == []
    async for _, written_ms in blobs.list("f"):
        assert abs(written_ms - now_ms) < 60_000


async def test_a_removed_blob_is_gone(blobs: Blobs) -> None:
    """And can be removed again."""
    await blobs.write("f/a", pieces(b"x"))
    for _ in range(2):
        await blobs.remove("f/a")
    assert await names(blobs) == []
    with pytest.raises(StoreUnavailable):
        await blobs.open("f/a", 0, 1)


@pytest.mark.parametrize("count", [1, LARGE])
async def test_a_write_whose_source_fails_leaves_nothing(
    blobs: Blobs, request: pytest.FixtureRequest, count: int
) -> None:
    """Its own error comes back, with its facts."""

    async def failing() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PIECE
        raise TooLarge("too large", limit_bytes=1)

    with pytest.raises(TooLarge) as failed:
        await blobs.write("f/a", failing())
    assert failed.value.facts == {"limit_bytes": 1}
    await check_nothing_left(blobs, request)


@pytest.mark.parametrize("count", [1, LARGE])
async def test_a_cancelled_write_leaves_nothing(blobs: Blobs, request: pytest.FixtureRequest, count: int) -> None:
    """Whoever cancels it need not clean up."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PIECE
        reached.set()
        await never.wait()

    writing = asyncio.ensure_future(blobs.write("f/a", hanging()))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await check_nothing_left(blobs, request)


async def check_nothing_left(blobs: Blobs, request: pytest.FixtureRequest) -> None:
    """Nothing is listed, and nothing is hidden."""
    assert await names(blobs) == []
    if isinstance(blobs, LocalBlobs):
        assert [name async for name, _ in blobs.list("incoming")] == []
    else:
        bucket: RunningBucket = request.getfixturevalue("bucket")
        await wait_until(lambda: "<UploadId>" not in bucket.unfinished())


async def test_blobs_written_at_the_same_time_do_not_mix(blobs: Blobs) -> None:
    """Each is what its own writer wrote."""
    contents = {f"f/{n}": bytes([n]) * 300_000 for n in range(12)}
    await asyncio.gather(*(blobs.write(name, pieces(c[:100], c[100:])) for name, c in contents.items()))
    for name, content in contents.items():
        assert await read(blobs, name, 0, len(content)) == content


async def test_a_directory_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the process lets others do by default."""
    blobs = LocalBlobs(tmp_path / "files")
    await blobs.write("f/a", pieces(b"x"))
    made = list(tmp_path.rglob("*"))  # noqa: ASYNC240 - nothing else waits
    assert len(made) == 4
    assert [path for path in made if path.stat().st_mode & 0o077] == []


async def test_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    """What is still written to stays, and so does every blob."""
    blobs = LocalBlobs(tmp_path)
    await blobs.write("f/a", pieces(b"x"))
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1_000_000, 1_000_000))
    await blobs.remove_unfinished(int(time.time() * 1000) - 3_600_000)
    assert (old.exists(), young.exists()) == (False, True)
    assert await names(blobs) == ["f/a"]


async def test_a_directory_that_cannot_be_written_is_told_as_away(tmp_path: Path) -> None:
    """503, not a failure of the gateway."""
    (tmp_path / "taken").write_bytes(b"a file where the directory should be")
    with pytest.raises(StoreUnavailable) as refused:
        await LocalBlobs(tmp_path / "taken").write("f/a", pieces(b"x"))
    assert refused.value.facts == {"outcome": "not_written"}


async def test_a_blob_that_is_cut_short_is_not_sent_as_whole(tmp_path: Path) -> None:
    """Reading it fails where the bytes end."""
    blobs = LocalBlobs(tmp_path)
    await blobs.write("f/a", pieces(PIECE))
    os.truncate(tmp_path / "f/a", 1000)
    with pytest.raises(StoreUnavailable):
        await read(blobs, "f/a", 0, len(PIECE))


async def test_a_bucket_that_is_away_is_told_as_away(tmp_path: Path) -> None:
    """Within its repeats; whatever is asked of it."""
    bucket = RunningBucket(tmp_path / "log")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environ.items():
            patch.setenv(name, value)
        blobs = S3Blobs(bucket.url)
    bucket.stop()
    for attempt in (
        blobs.write("f/a", pieces(b"x")),
        blobs.write("f/a", pieces(*[PIECE] * LARGE)),
        blobs.open("f/a", 0, 1),
        blobs.remove("f/a"),
        names(blobs),
    ):
        with pytest.raises(StoreUnavailable):
            await attempt


async def test_a_bucket_that_does_not_exist_is_told_as_away(bucket: RunningBucket) -> None:
    """It is the operator's to create."""
    with pytest.raises(StoreUnavailable):
        await S3Blobs("s3://no-such-bucket/x").write("f/a", pieces(b"x"))
