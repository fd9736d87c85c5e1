"""Every fault of the kit: what it is called, what it needs, and what may be lost by it."""

from __future__ import annotations

import msgspec

from tests.faults import clusters, deaths, failovers, losses, sentinels
from tests.faults.bench import Kind
from tests.faults.crew import Pace
from tests.faults.network import HOP_FAULTS, Play, on_client_hop, on_store_hop
from tests.faults.writers import Way


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong while a crew works.

    Args:
        at: The hop or the process that it befalls.
        kind: The bench that it is done on.
        covered: Whether another scenario of the test suite does the same, so that the short form leaves it out.
        rare: Whether only the long form does it, for the time that it takes.
    """

    at: str
    name: str
    play: Play
    kind: Kind = Kind.OUTER
    pace: Pace = Pace()
    covered: bool = False
    rare: bool = False

    @property
    def title(self) -> str:
        """The fault in words."""
        return f"{self.at}: {self.name}"


# A store that forgets can tell only writers that keep a position.
LOSSY = Pace(ways=(Way.NUMBERED, Way.NUMBERED, Way.SOCKET), lossy=True)
SPACIOUS = Pace(rest_s=0.001)

CLIENT_HOP = [
    Fault(at="client → gateway", name=name, play=on_client_hop(play), kind=Kind.FOREIGN)
    for name, play in HOP_FAULTS.items()
]
FAULTS = [
    *(msgspec.structs.replace(fault, kind=Kind.OUTER) for fault in CLIENT_HOP),
    *(Fault(at="gateway → store", name=name, play=on_store_hop(play)) for name, play in HOP_FAULTS.items()),
    Fault(at="worker", name="SIGKILL", play=deaths.kill_worker),
    Fault(at="worker", name="SIGSTOP", play=deaths.freeze_worker, covered=True),
    Fault(at="supervisor", name="SIGTERM", play=deaths.drain, covered=True),
    Fault(at="supervisor", name="SIGKILL", play=deaths.kill_supervisor),
    Fault(at="supervisor", name="SIGSTOP", play=deaths.freeze_supervisor),
    Fault(at="store", name="SIGKILL", play=deaths.kill_store),
    Fault(at="store", name="SIGSTOP", play=deaths.freeze_store, covered=True),
    Fault(at="writer", name="SIGKILL", play=deaths.kill_writer),
    Fault(at="writer", name="SIGSTOP", play=deaths.freeze_writer),
    Fault(at="reader", name="SIGKILL", play=deaths.kill_reader),
    Fault(at="reader", name="SIGSTOP", play=deaths.freeze_reader),
    Fault(at="everywhere", name="both hops cut, worker and store killed", play=deaths.all_at_once),
    Fault(at="worker", name="memory limit, slow readers", play=losses.crowd_memory, pace=SPACIOUS),
    Fault(at="store", name="memory limit", play=losses.fill_memory),
    Fault(at="store", name="older copy restored", play=losses.restore_copy, pace=LOSSY),
    Fault(
        at="store",
        name="older copy restored, a worker frozen",
        play=losses.restore_under_frozen_worker,
        pace=msgspec.structs.replace(LOSSY, reader_silence_s=20.0),
    ),
    Fault(at="store", name="end of its file lost", play=losses.truncate_file, pace=LOSSY),
    Fault(
        at="store",
        name="replica promoted, writes lost",
        play=failovers.promote_replica,
        kind=Kind.REPLICATED,
        pace=LOSSY,
    ),
    Fault(
        at="store",
        name="replica promoted, clients' connections cut",
        play=failovers.promote_in_a_storm,
        kind=Kind.REPLICATED,
        pace=LOSSY,
    ),
    Fault(at="store", name="primary demoted, connections stay", play=failovers.demote_primary, kind=Kind.REPLICATED),
    Fault(
        at="cluster",
        name="a primary killed, its replica promoted, writes lost",
        play=clusters.lose_writes,
        kind=Kind.CLUSTER,
        pace=LOSSY,
    ),
    Fault(
        at="cluster",
        name="a primary killed, its replica promoted",
        play=clusters.kill_primary,
        kind=Kind.CLUSTER,
        pace=LOSSY,
        rare=True,
    ),
    Fault(
        at="cluster",
        name="a primary frozen, its replica promoted",
        play=clusters.freeze_primary,
        kind=Kind.CLUSTER,
        pace=LOSSY,
        rare=True,
    ),
    Fault(at="cluster", name="roles changed in good order", play=clusters.change_roles, kind=Kind.CLUSTER, rare=True),
    Fault(at="cluster", name="the run's slot moved", play=clusters.move_slot, kind=Kind.CLUSTER),
    Fault(at="cluster", name="every node killed", play=clusters.kill_all, kind=Kind.CLUSTER, rare=True),
    Fault(
        at="store",
        name="killed, replica promoted by sentinels",
        play=sentinels.kill_primary,
        kind=Kind.WATCHED,
        pace=LOSSY,
    ),
    Fault(
        at="store",
        name="frozen, replica promoted by sentinels",
        play=sentinels.freeze_primary,
        kind=Kind.WATCHED,
        pace=LOSSY,
        rare=True,
    ),
    Fault(at="store", name="full disk, flushed every second", play=losses.fill_disk, kind=Kind.SMALL_DISK),
    Fault(at="embedded store", name="full disk, flushed always", play=losses.fill_disk, kind=Kind.EMBEDDED),
    Fault(at="store, gateway", name="clock steps", play=losses.step_clocks, kind=Kind.FAKED_CLOCK),
]
