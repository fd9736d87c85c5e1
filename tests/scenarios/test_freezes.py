"""A process stops without ending, and later goes on with what it had been asked meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.scenarios.crowd import gather
from tests.support.processes import serving
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

EVENTS_BETWEEN = 150
STORE_TIMEOUT_S = 0.5
SILENCE_S = 1.5
KEEPALIVE_S = 0.5

both_ways = pytest.mark.parametrize("keyed", [False, True], ids=["writer_seq", "idempotency_key"])


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Keep a process from running during the block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@both_ways
async def test_a_store_that_hangs_is_waited_for(data_dir: Path, keyed: bool) -> None:
    """What a hanging store was asked, it does later: by then it has been sent again, and is stored once.
    Readers stay connected."""
    async with serving(data_dir, store_timeout_s=STORE_TIMEOUT_S) as gateway:
        async with gather(gateway, keyed=keyed) as crowd:
            for _ in range(2):
                await crowd.grows(EVENTS_BETWEEN)
                repeats = crowd.repeats
                with frozen(gateway.store()):
                    await wait_until(lambda: crowd.repeats > repeats + len(crowd.writers))  # noqa: B023 - awaited at once
            await crowd.grows(EVENTS_BETWEEN)
        assert [reader.attempts for reader in crowd.bare] == [1, 1]


@both_ways
async def test_a_worker_that_freezes_is_left(data_dir: Path, keyed: bool) -> None:
    """Readers and writers of a process that hangs find another; what it does late is stored once."""
    async with (
        serving(data_dir, workers=2, keepalive_s=KEEPALIVE_S) as gateway,
        gather(gateway, writers=8, readers=1, keyed=keyed, silence_s=SILENCE_S) as crowd,
    ):
        for _ in range(2):
            await crowd.grows(EVENTS_BETWEEN)
            repeats = crowd.repeats
            # The one that serves most, and of eight writers and three readers some writer: connections are not
            # shared out evenly, and one that serves no writer is not missed.
            worker = max(gateway.serving_workers(), key=lambda process: len(process.net_connections("tcp4")))
            with frozen(worker):
                await wait_until(lambda: crowd.repeats > repeats)  # noqa: B023 - awaited at once
                await crowd.grows(EVENTS_BETWEEN)
            await crowd.grows(EVENTS_BETWEEN)
