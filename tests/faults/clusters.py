"""Nodes of a cluster die, stand still, change their roles, and hand slots on."""

from __future__ import annotations

import anyio

from tests.faults.bench import Bench
from tests.faults.crew import Crew
from tests.support.clusters import Cluster, ServerProcess, slot_of_run
from tests.support.running import wait_until

EVENTS = 40
HALF_MOVED = 1
FAILOVER_S = 90.0


async def kill_primary(bench: Bench, crew: Crew) -> None:
    """Kill the node that has the run, and wait until its replica has its place; afterwards it is the replica."""
    cluster = bench.the_cluster
    await healed(cluster)
    await crew.grows(EVENTS)
    primary = await owner_of_run(cluster, crew)
    primary.kill()
    await replaced(cluster, primary, crew)
    await crew.grows(EVENTS)
    await primary.start()


async def lose_writes(bench: Bench, crew: Crew) -> None:
    """Part the replica from the node that has the run, let writers write on, kill the node: the replica that takes its
    place lacks what was written since."""
    cluster = bench.the_cluster
    await healed(cluster)
    await crew.grows(EVENTS)
    primary = await owner_of_run(cluster, crew)
    replica = await replica_of(cluster, primary)
    await primary.ask("ACL", "SETUSER", "default", "-psync", "-sync")
    await primary.ask("CLIENT", "KILL", "TYPE", "REPLICA")

    async def is_parted() -> bool:
        return (await replica.info("replication"))["master_link_status"] == "down"

    await wait_until(is_parted, timeout_s=FAILOVER_S)
    await crew.grows(EVENTS)
    await crew.catches_up()
    primary.kill()
    await replaced(cluster, primary, crew)
    await crew.grows(EVENTS)
    await primary.start()


async def freeze_primary(bench: Bench, crew: Crew) -> None:
    """Stop the node that has the run without ending its connections, until its replica has its place and after."""
    cluster = bench.the_cluster
    await healed(cluster)
    await crew.grows(EVENTS)
    primary = await owner_of_run(cluster, crew)
    primary.freeze()
    await replaced(cluster, primary, crew)
    await crew.grows(EVENTS)
    primary.thaw()
    await crew.grows(EVENTS)


async def change_roles(bench: Bench, crew: Crew) -> None:
    """Have the replica take the place of the node that has the run, in agreement with it: nothing may be lost."""
    cluster = bench.the_cluster
    await healed(cluster)
    await crew.grows(EVENTS)
    primary = await owner_of_run(cluster, crew)
    replica = await replica_of(cluster, primary)
    await replica.ask("CLUSTER", "FAILOVER")
    await replaced(cluster, primary, crew)
    await crew.grows(EVENTS)


async def move_slot(bench: Bench, crew: Crew) -> None:
    """Move the run's slot to another node, and write while it is half moved."""
    cluster = bench.the_cluster
    await healed(cluster)
    await crew.grows(EVENTS)
    slot = slot_of_run(crew.run_id)
    source = await cluster.owner(slot)
    target = next(node for node in await cluster.present_primaries() if node is not source)
    await cluster.begin_move(slot, target)
    await crew.grows(EVENTS)
    await cluster.move_keys(slot, source, target, most=HALF_MOVED)
    await crew.suffers()
    await cluster.move_keys(slot, source, target)
    await cluster.end_move(slot, target)
    await crew.grows(EVENTS)


async def kill_all(bench: Bench, crew: Crew) -> None:
    """Kill every node at once, and start them again with what is on their disks."""
    cluster = bench.the_cluster
    await healed(cluster)
    await crew.grows(EVENTS)
    for node in cluster.nodes:
        node.kill()
    await crew.suffers()
    async with anyio.create_task_group() as starts:
        for node in cluster.nodes:
            starts.start_soon(node.start)
    await crew.grows(EVENTS)


async def owner_of_run(cluster: Cluster, crew: Crew) -> ServerProcess:
    """Return the node that has the crew's run."""
    return await cluster.owner(slot_of_run(crew.run_id))


async def replica_of(cluster: Cluster, primary: ServerProcess) -> ServerProcess:
    """Return the node that follows a primary."""
    for node in cluster.nodes:
        told = await node.info("replication")
        if told["role"] == "slave" and told["master_port"] == str(primary.port):
            return node
    raise LookupError(f"nobody follows {primary.address}")


async def replaced(cluster: Cluster, primary: ServerProcess, crew: Crew) -> None:
    """Wait until another node has the run."""
    others = Cluster([node for node in cluster.nodes if node is not primary], [])

    async def is_replaced() -> bool:
        owner = await others.find_owner(slot_of_run(crew.run_id))
        return owner != primary.address and await others.works()

    await wait_until(is_replaced, timeout_s=FAILOVER_S)


async def healed(cluster: Cluster) -> None:
    """Wait until all slots are served and every replica follows its primary."""

    async def is_whole() -> bool:
        told = [await node.info("replication") for node in cluster.nodes]
        links = [fields.get("master_link_status") for fields in told if fields["role"] == "slave"]
        return await cluster.works() and links == ["up"] * 3

    await wait_until(is_whole, timeout_s=FAILOVER_S)
