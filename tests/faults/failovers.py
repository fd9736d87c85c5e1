"""A replica takes the place of the store, with what it has."""

from __future__ import annotations

import asyncio
import re

from tests.faults.bench import Bench, follow
from tests.faults.crew import Crew
from tests.faults.network import cut_answers
from tests.support.proxy import Cut, Far, Proxy
from tests.support.running import RunningStore, wait_until

EVENTS = 40
PAUSE_MS = 30_000
OFFSET = re.compile(r"master_repl_offset:(\d+)")


async def promote_replica(bench: Bench, crew: Crew) -> None:
    """Part a replica from its primary, let writers write on, kill the primary and promote the replica.

    Afterwards the old primary follows the new one, so that it can be done again.
    """
    replica, hop = its_replica(bench)
    await crew.grows(EVENTS)
    hop.hold()
    await crew.grows(EVENTS)
    await crew.catches_up()
    primary = bench.the_store
    primary.kill()
    assert replica.ask("REPLICAOF NO ONE").startswith("+OK")
    bench.the_store_hop.far = Far(path=replica.socket_path)
    bench.the_store_hop.cut_all(Cut.RESET)
    await crew.grows(EVENTS)
    hop.cut_all(Cut.RESET)
    hop.release()
    bench.store, bench.replica = replica, primary
    await asyncio.to_thread(primary.start)
    await follow(bench)


async def promote_in_a_storm(bench: Bench, crew: Crew) -> None:
    """The same while clients' connections are cut in the middle of answers."""
    async with asyncio.TaskGroup() as blows:
        blows.create_task(cut_answers(bench.client_hop, crew))
        blows.create_task(promote_replica(bench, crew))


async def demote_primary(bench: Bench, crew: Crew) -> None:
    """Change the roles of primary and replica in good order, as managed stores do: what leads to the store leads to
    the new primary from now on, connections to the old one stay, and it takes no write any more.

    It does not even learn of what is written now: who reads from it reads what was.
    """
    replica, hop = its_replica(bench)
    primary = bench.the_store
    await crew.grows(EVENTS)
    primary.ask(f"CLIENT PAUSE {PAUSE_MS} WRITE")
    await wait_until(lambda: offset(replica) == offset(primary), timeout_s=PAUSE_MS / 1000)
    assert replica.ask("REPLICAOF NO ONE").startswith("+OK")
    hop.far = bench.the_store_hop.far = Far(path=replica.socket_path)
    hop.cut_all(Cut.RESET)
    hop.hold()
    primary.ask(f"REPLICAOF 127.0.0.1 {hop.port}")
    primary.ask("CLIENT UNPAUSE")
    bench.store, bench.replica = replica, primary
    await crew.grows(EVENTS)
    await crew.catches_up()
    hop.release()
    await follow(bench)


def its_replica(bench: Bench) -> tuple[RunningStore, Proxy]:
    """Return the bench's replica and the relay by which it follows."""
    assert bench.replica is not None
    assert bench.replica_hop is not None
    return bench.replica, bench.replica_hop


def offset(store: RunningStore) -> int:
    """Return how far a store's history of writes goes."""
    found = OFFSET.search(store.ask("INFO replication"))
    assert found is not None
    return int(found[1])
