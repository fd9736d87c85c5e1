"""Taking connections: one a turn of the event loop while few come, many while many wait."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.commands.acceptance import ACCEPTS, CALM, CROWD, SPARE_FILES, Acceptance, count_waiting
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio


class Taken:
    """A listening socket, who takes its connections, and how many of them came in each turn."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.acceptance = Acceptance(self.make, most=1_000)
        self.protocols: list[asyncio.Protocol] = []
        self.turns = [0]
        self.clients = ExitStack()

    def make(self) -> asyncio.Protocol:
        """Count a connection."""
        if not self.turns[-1]:
            asyncio.get_running_loop().call_soon(self.turns.append, 0)
        self.turns[-1] += 1
        self.protocols.append(asyncio.Protocol())
        return self.protocols[-1]

    def connect(self, count: int) -> None:
        """Open connections, while the event loop does nothing else."""
        for _ in range(count):
            self.clients.enter_context(socket.create_connection(self.sock.getsockname()))

    async def take(self, count: int) -> int:
        """Let so many connections be taken; return the most that came in one turn."""
        until, self.turns = len(self.protocols) + count, [0]
        await wait_until(lambda: len(self.protocols) == until)
        return max(self.turns)


async def turn(*, times: int = 1) -> None:
    """Let the event loop look for what came, so often."""
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.fixture
async def taken() -> AsyncIterator[Taken]:
    """A socket whose connections are taken."""
    taken = Taken()
    await taken.acceptance.open([taken.sock])
    yield taken
    taken.acceptance.close()
    taken.clients.close()
    taken.sock.close()


async def test_a_crowd_is_taken_many_a_turn_until_it_is_calm_again(taken: Taken) -> None:
    """What waits in the kernel's queue is seen; once few come, the descriptors that look in vain are closed."""
    count = 3 * ACCEPTS
    taken.connect(count)
    assert count_waiting(taken.sock) == count
    before = await taken.take(count)
    taken.connect(count)
    await taken.acceptance.pace(())
    crowded = await taken.take(count)
    await taken.acceptance.pace(())
    await taken.acceptance.pace(())
    taken.connect(count)
    after = await taken.take(count)
    assert (before, crowded, after) == (1, ACCEPTS, 1)


async def test_few_connections_stay_with_one_descriptor(taken: Taken) -> None:
    """A single one that waits is no crowd."""
    taken.connect(CROWD - 1)
    await taken.acceptance.pace(())
    taken.connect(CALM)
    assert await taken.take(CROWD - 1 + CALM) == 1


async def test_nothing_is_taken_once_it_is_closed_in_a_crowd(taken: Taken) -> None:
    """Not by the other descriptors either: whoever has the socket next finds them in its queue."""
    taken.connect(ACCEPTS)
    await taken.acceptance.pace(())
    taken.acceptance.close()
    await turn()
    came = len(taken.protocols)
    taken.connect(3)
    await turn(times=50)
    assert len(taken.protocols) == came
    assert count_waiting(taken.sock) == ACCEPTS - came + 3


async def test_a_crowd_waits_while_there_is_no_room(taken: Taken) -> None:
    """At the limit all descriptors are closed; with room again the queue is taken."""
    taken.connect(ACCEPTS)
    await taken.acceptance.pace(())
    await taken.take(ACCEPTS)
    await taken.acceptance.pace(range(1_000))
    taken.connect(3)
    await turn(times=50)
    assert count_waiting(taken.sock) == 3
    await taken.acceptance.pace(())
    await taken.take(3)


async def test_a_crowd_is_held_at_the_limit_between_two_looks(taken: Taken) -> None:
    """What comes beyond it waits: taken, it would use up the descriptors that are no client's."""
    taken.acceptance.close()
    most = 2 * ACCEPTS
    taken.acceptance = Acceptance(taken.make, most=most)
    await taken.acceptance.open([taken.sock])
    taken.connect(6 * ACCEPTS)
    await taken.acceptance.pace(taken.protocols)
    await turn(times=100)
    assert most <= len(taken.protocols) <= most + ACCEPTS
    assert count_waiting(taken.sock) == 6 * ACCEPTS - len(taken.protocols)
    taken.protocols.clear()
    await taken.acceptance.pace(taken.protocols)
    await wait_until(lambda: len(taken.protocols) >= most)


def test_a_socket_that_does_not_listen_has_nobody_waiting() -> None:
    """Nor one of another family."""
    with socket.socket(socket.AF_UNIX) as other:
        assert count_waiting(other) == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells it")
def test_the_table_of_descriptors_is_made_before_it_fills() -> None:
    """It does not grow, and stop the process, while thousands of connections come."""
    look = "print(next(line for line in open('/proc/self/status') if line.startswith('FDSize')))"
    code = f"from gateway.commands.acceptance import fit_files; {look}; fit_files(700); {look}"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    before, after = [int(line.split()[1]) for line in said.splitlines() if line]
    assert before < 700 + SPARE_FILES <= after
