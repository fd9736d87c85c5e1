"""Every fault of the kit, once, while writers and readers of every kind work."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.bench import Bench, Kind, missing, open_bench
from tests.faults.catalogue import FAULTS, Fault
from tests.faults.playing import play

pytestmark = pytest.mark.anyio

QUICK = [fault for fault in FAULTS if fault.kind is Kind.OUTER and not fault.covered]
SPECIAL = [fault for fault in FAULTS if fault.kind is not Kind.OUTER and not fault.rare]


def name_of(fault: Fault) -> str:
    """Return a fault's name for test reports."""
    return fault.title.replace("→", "to").replace(" ", "_")


@pytest.fixture(scope="module")
async def bench(anyio_backend: object) -> AsyncIterator[Bench]:
    """A gateway of two workers over a store of its own, which all these faults befall, one after the other."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with open_bench(Kind.OUTER, Path(folder)) as bench:
            yield bench


async def survive(bench: Bench, fault: Fault) -> None:
    """Do a fault, and find nothing broken."""
    played = await play(bench, fault)
    assert played.findings == []
    assert played.appended > 0
    assert played.delivered >= played.appended
    print(
        f"{played.appended} appended, {played.delivered} delivered, {played.told_lost} lost and told, "
        f"longest pause of writers {played.write_pause_s:.2f} s, of readers {played.read_pause_s:.2f} s"
    )


@pytest.mark.parametrize("fault", QUICK, ids=name_of)
async def test_nothing_is_lost_and_nothing_comes_twice(bench: Bench, fault: Fault) -> None:
    """Whatever happens on a hop or to a process: the log is dense, what was acknowledged is read, once."""
    await survive(bench, fault)


@pytest.mark.parametrize("fault", SPECIAL, ids=name_of)
async def test_a_store_in_trouble_loses_nothing_silently(fault: Fault) -> None:
    """A store without room, without its latest writes or with another clock: every loss is told to whom it befalls."""
    lack = missing(fault.kind)
    if lack is not None:
        pytest.skip(f"NOT TRIED: {fault.title}: {lack}")
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with open_bench(fault.kind, Path(folder)) as bench:
            await survive(bench, fault)
