"""The scenarios by name: which cases each has, long and short, and the figure that targets are compared by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from loadtest import append, backlog, crowd, duties, fanout, replay, streamed
from loadtest.measuring import Case, Row

DELIVERY, EVENT, RATE = "µs/delivery", "µs/event", "events/s"


class Scenario(msgspec.Struct, frozen=True):
    """What is measured, in one sentence; `cases` takes the targets and whether to be short."""

    about: str
    compare: str
    cases: Callable[[Sequence[str], bool], list[Case]]


def _fanout(against: Sequence[str], short: bool) -> list[Case]:
    rates = (10, 100) if short else (10, 50, 100, 200, 400)
    # What reads the store for each reader would only stall beyond its limit.
    slow = [name for name in against if name == "naive"]
    quick = [name for name in against if name != "naive"]
    found = fanout.cases(quick, rates=rates, readers=1_000, seconds=3 if short else 5)
    return found + (fanout.cases(slow, rates=(10,), readers=200, seconds=3) if slow else [])


def _transports(_against: Sequence[str], short: bool) -> list[Case]:
    rates, seconds = ((50,) if short else (10, 50, 100)), 3 if short else 5
    ours = ["gateway"]
    both = [fanout.cases(ours, rates=rates, readers=1_000, seconds=seconds, transport=over) for over in ("sse", "ws")]
    return [case for pair in zip(*both, strict=True) for case in pair]


def _linger(_against: Sequence[str], short: bool) -> list[Case]:
    pauses, seconds = ((0, 20) if short else (0, 5, 20, 50)), 3 if short else 5
    ours = ["gateway"]
    return [
        case
        for pause in pauses
        for case in fanout.cases(ours, rates=(100,), readers=1_000, seconds=seconds, linger_ms=pause)
    ]


def _large(against: Sequence[str], short: bool) -> list[Case]:
    return fanout.cases(
        [name for name in against if name != "naive"],
        rates=(10,),
        readers=10_000,
        seconds=3 if short else 6,
        probed=True,
    )


def _stopped(_against: Sequence[str], short: bool) -> list[Case]:
    seconds, ours = 3 if short else 8, ["gateway"]
    return [
        case
        for stopped in (0, 200)
        for case in fanout.cases(ours, rates=(50,), readers=1_000, seconds=seconds, stopped=stopped)
    ]


def _replay(against: Sequence[str], short: bool) -> list[Case]:
    quick = [name for name in against if name != "naive"] if short else against
    return replay.cases(quick, readers=1_000, events=1_000)


def _runs(against: Sequence[str], short: bool) -> list[Case]:
    return crowd.cases(against, runs=1_000, rates=(5_000, 0), seconds=3 if short else 5)


def _growth(_against: Sequence[str], short: bool) -> list[Case]:
    sizes = ((100, 0), (1_000, 9_000)) if short else ((100, 0), (10_000, 90_000))
    ours = ["gateway"]
    # So fast that every run of the largest case has its turn.
    return [
        msgspec.structs.replace(case, group="")
        for runs, idle in sizes
        for case in crowd.cases(ours, runs=runs, idle=idle, rates=(2_500,), seconds=4)
    ]


def _append(against: Sequence[str], short: bool) -> list[Case]:
    return append.cases(against, seconds=2 if short else 4)


def _append_always(against: Sequence[str], short: bool) -> list[Case]:
    return append.cases(against, seconds=2 if short else 4, fsync="always")


def _fanout_always(against: Sequence[str], short: bool) -> list[Case]:
    quick = [name for name in against if name not in ("naive", "loop")]
    return fanout.cases(quick, rates=(100,) if short else (10, 100), readers=1_000, seconds=3, fsync="always")


def _workers(_against: Sequence[str], short: bool) -> list[Case]:
    ours = ["gateway"]
    return [
        case
        for workers in (1, 2)
        for case in fanout.cases(ours, rates=(200,), readers=1_000, seconds=2 if short else 4, workers=workers)
    ]


def _snapshot(_against: Sequence[str], short: bool) -> list[Case]:
    return replay.snapshot_cases(readers=1_000, events=20_000 if short else 100_000)


def _duties(_against: Sequence[str], short: bool) -> list[Case]:
    return duties.cases(readers=1_000, seconds=2 if short else 4)


def _streamed(_against: Sequence[str], short: bool) -> list[Case]:
    return streamed.cases(rates=(5_000, 0), seconds=2 if short else 4)


SCENARIOS = {
    "fanout": Scenario("One run, 1,000 SSE readers, events of about 200 bytes.", DELIVERY, _fanout),
    "transports": Scenario("The same over SSE and over WebSocket.", DELIVERY, _transports),
    "linger": Scenario("The same with pauses between writes to a reader.", DELIVERY, _linger),
    "large": Scenario("One run, 10,000 SSE readers; memory and connects of idle readers.", DELIVERY, _large),
    "stopped": Scenario("Readers that stop reading, and what the others notice of it.", "p99 ms", _stopped),
    "replay": Scenario("1,000 readers at once from the beginning of 1,000 events.", "all after s", _replay),
    "runs": Scenario("Many runs, a reader each, HTTP appends.", EVENT, _runs),
    "growth": Scenario("The same with few and with many runs stored.", EVENT, _growth),
    "append": Scenario("Appends over warm connections, fsync every second.", RATE, _append),
    "streamed": Scenario("Events over one connection, each answered by its seq.", RATE, _streamed),
    "fanout-always": Scenario("The fan-out, fsync always.", DELIVERY, _fanout_always),
    "workers": Scenario("The fan-out over one and over two processes; two have both cores.", DELIVERY, _workers),
    "snapshot": Scenario("1,000 readers at once of a long run, from its state.", "all after s", _snapshot),
    "duties": Scenario("What keys, checks and a store cost on the gateway's own path.", EVENT, _duties),
    "append-always": Scenario("The same, fsync always.", RATE, _append_always),
}


def _backlog(short: bool) -> list[Row]:
    sizes = (1_000, 10_000) if short else (1_000, 10_000, 100_000)
    return backlog.measure_backlog(sizes=sizes, claims=200, fsync="always")


def _idle(short: bool) -> list[Row]:
    return backlog.measure_idle(runs=1_000 if short else 10_000, seconds=5 if short else 20, fsync="always")


INSIDE: dict[str, tuple[str, Callable[[bool], list[Row]]]] = {
    "backlog": ("Claims and lists with more and more queued runs.", _backlog),
    "idle": ("A gateway that only waits: its share of a core.", _idle),
}
"""Measured inside one process, without peers."""

SHORT = ("fanout", "replay", "append")
