"""What networks do to connections, on any hop of a bench that has a relay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from tests.faults.bench import Bench
from tests.faults.crew import Crew
from tests.support.proxy import Choose, Cut, Dooms, Fate, Proxy, let_live

LATENCY_S = 0.05
THIN_BYTES_PER_S = 30_000.0
EVENTS = 40
TIMES = 3
CUTS = 12
MOST_BYTES = 3_000
MOST_SENT_BYTES = 1_500
MOST_S = 0.3

Play = Callable[[Bench, Crew], Awaitable[None]]
PlayHop = Callable[[Proxy, Crew], Awaitable[None]]


async def slow_down(hop: Proxy, crew: Crew) -> None:
    """Hold back everything for 50 ms, either way."""
    hop.latency_s = LATENCY_S
    try:
        await crew.grows(EVENTS)
    finally:
        hop.latency_s = 0


async def thin_out(hop: Proxy, crew: Crew) -> None:
    """Let pass no more than 30 kB a second on each connection, either way."""
    hop.bytes_per_s = THIN_BYTES_PER_S
    try:
        await crew.grows(EVENTS)
    finally:
        hop.bytes_per_s = None


async def reset(hop: Proxy, crew: Crew) -> None:
    """Break every connection by RST."""
    await _cut(hop, crew, Cut.RESET)


async def finish(hop: Proxy, crew: Crew) -> None:
    """Break every connection by FIN, in the middle of whatever it carries."""
    await _cut(hop, crew, Cut.FIN)


async def swallow(hop: Proxy, crew: Crew) -> None:
    """Have every connection fall silent for ever; nobody is told."""
    await _cut(hop, crew, Cut.BLACK_HOLE, times=1)


async def _cut(hop: Proxy, crew: Crew, how: Cut, *, times: int = TIMES) -> None:
    for _ in range(times):
        hop.cut_all(how)
        await crew.grows(EVENTS)


async def refuse(hop: Proxy, crew: Crew) -> None:
    """Refuse connections until appends fail, and break those that stand."""
    hop.refuse()
    try:
        hop.cut_all(Cut.RESET)
        await crew.suffers(len(crew.writers))
    finally:
        await hop.accept()
    await crew.grows(EVENTS)


async def part(hop: Proxy, crew: Crew) -> None:
    """Let nothing pass until appends fail, and then all that was held back."""
    await _hold(hop, crew, answers_only=False)


async def part_answers(hop: Proxy, crew: Crew) -> None:
    """Let all that is asked pass and nothing of the answers until appends fail, and then all that was held back."""
    await _hold(hop, crew, answers_only=True)


async def _hold(hop: Proxy, crew: Crew, *, answers_only: bool) -> None:
    hop.hold(answers_only=answers_only)
    try:
        await crew.suffers(len(crew.writers))
    finally:
        hop.release()
    await crew.grows(EVENTS)


async def swallow_some(hop: Proxy, crew: Crew) -> None:
    """Have single connections fall silent, one after the other, while the others work on."""
    for _ in range(TIMES):
        hop.cut_one(Cut.BLACK_HOLE)
        await crew.grows(EVENTS)
    await crew.catches_up()


async def cut_answers(hop: Proxy, crew: Crew) -> None:
    """Break connections after some bytes towards the client: in the middle of answers."""
    dooms = Dooms(hop.connections, cuts=hop.cuts.total() + CUTS, most_bytes=MOST_BYTES, most_s=MOST_S)
    await _doom(hop, crew, dooms)


async def cut_requests(hop: Proxy, crew: Crew) -> None:
    """Break connections after some bytes from the client: in the middle of requests."""
    end = hop.cuts.total() + CUTS
    choice = Dooms(hop.connections, cuts=end, most_bytes=MOST_SENT_BYTES, most_s=MOST_S, black_holes=0)

    def choose(proxy: Proxy) -> Fate | None:
        fate = choice(proxy)
        return fate and Fate(fate.how, after_sent_bytes=fate.after_bytes, after_s=2 * MOST_S)

    await _doom(hop, crew, choose)


async def _doom(hop: Proxy, crew: Crew, choose: Choose) -> None:
    wanted = hop.cuts.total() + CUTS
    with chosen(hop, choose):
        hop.cut_all(Cut.RESET)
        await hop.wait_cuts(wanted)
    hop.cut_all(Cut.RESET)
    await crew.grows(EVENTS)


@contextmanager
def chosen(hop: Proxy, choose: Choose) -> Iterator[None]:
    """Have new connections' fates chosen so during the block."""
    hop.choose = choose
    try:
        yield
    finally:
        hop.choose = let_live


def on_client_hop(play: PlayHop) -> Play:
    """Return what does this between clients and the gateway."""

    async def play_there(bench: Bench, crew: Crew) -> None:
        await play(bench.client_hop, crew)

    return play_there


def on_store_hop(play: PlayHop) -> Play:
    """Return what does this between the gateway and its store."""

    async def play_there(bench: Bench, crew: Crew) -> None:
        await play(bench.the_store_hop, crew)

    return play_there


HOP_FAULTS = {
    "latency": slow_down,
    "bandwidth": thin_out,
    "RST": reset,
    "FIN": finish,
    "black hole": swallow,
    "refused": refuse,
    "parted, then healed": part,
    "answers held back": part_answers,
    "single black holes": swallow_some,
    "cut in answers": cut_answers,
    "cut in requests": cut_requests,
}
