"""The long form: every fault, round after round, until the time is over.

    python -m tests.faults --minutes 15 --report docs/reliability.md
    python -m tests.faults --url https://gateway.example --key gwk_… --minutes 5

Without a URL, gateways and stores are started here, and everything is done to them. With one, only the way to it is
broken: a relay on this machine. Ends with status 1 when anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import random
import sys
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import msgspec

from tests.faults.address import Address
from tests.faults.bench import Bench, Kind, missing, open_bench, open_foreign
from tests.faults.catalogue import CLIENT_HOP, FAULTS, Fault
from tests.faults.playing import Played, play
from tests.faults.report import put_into, render_table
from tests.support.proxy import Far


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5, help="how long to go on beginning faults (5)")
    parser.add_argument("--scale", type=int, default=10, help="how much is written between blows (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults (0)")
    parser.add_argument("--only", default="", help="faults whose title contains this")
    parser.add_argument("--report", type=Path, help="a page whose table is replaced")
    parser.add_argument("--keep", type=Path, help="a directory for the histories in which something was found")
    parser.add_argument("--url", help="a gateway that runs already")
    parser.add_argument("--key", help="its key, with the scopes runs:read and runs:write")
    parser.add_argument("--silence-s", type=float, default=20, help="with --url: longer than its keep-alive (20)")
    chosen = parser.parse_args(arguments)
    if (chosen.url is None) != (chosen.key is None):
        parser.error("--url and --key go together")
    return chosen


def choose_faults(chosen: argparse.Namespace) -> list[Fault]:
    """Return the faults that can be done to what was named, at the pace that was asked for."""
    faults = FAULTS if chosen.url is None else CLIENT_HOP
    silence = {} if chosen.url is None else {"silence_s": chosen.silence_s}
    return [
        msgspec.structs.replace(
            fault, pace=msgspec.structs.replace(fault.pace, scale=chosen.scale, readers_of_kind=3, **silence)
        )
        for fault in faults
        if chosen.only in fault.title
    ]


def open_one(kind: Kind, folder: Path, chosen: argparse.Namespace) -> AbstractAsyncContextManager[Bench]:
    """Return a bench, with the gateway that was named on it, if any was."""
    if chosen.url is None:
        return open_bench(kind, folder)
    url = httpx.URL(chosen.url)
    tls = url.scheme == "https"
    far = Far(host=url.host, port=url.port or (443 if tls else 80), tls=tls)
    return open_foreign(Address(chosen.url, chosen.key), far, folder)


async def go_on(chosen: argparse.Namespace, faults: list[Fault]) -> list[Played]:
    """Do all faults in random order, again and again until the time is over."""
    order = random.Random(chosen.seed)
    until_s = time.monotonic() + chosen.minutes * 60
    done: list[Played] = []
    while time.monotonic() < until_s:
        kinds = list(dict.fromkeys(fault.kind for fault in faults))
        order.shuffle(kinds)
        for kind in kinds:
            of_kind = [fault for fault in faults if fault.kind is kind]
            order.shuffle(of_kind)
            with tempfile.TemporaryDirectory(prefix="gw-") as folder:
                async with open_one(kind, Path(folder), chosen) as bench:
                    for fault in of_kind:
                        if time.monotonic() < until_s:
                            done.append(await play(bench, fault, keep=chosen.keep))
                            tell(done[-1])
    return done


def tell(played: Played) -> None:
    """Print a line for one fault, and what was found."""
    print(
        f"{played.fault}: {played.appended} appended, {played.delivered} delivered, {played.told_lost} lost and told, "
        f"{played.lost} lost, {played.repeated} repeated, pauses {played.write_pause_s:.2f} and "
        f"{played.read_pause_s:.2f} s",
        *(f"\n  FOUND {finding.broken}: {finding.who}: {finding.detail}" for finding in played.findings[:20]),
        flush=True,
    )


def main(arguments: list[str]) -> int:
    """Do the long form and return the exit status."""
    chosen = parse(arguments)
    wanted = choose_faults(chosen)
    untried = {fault.title: lack for fault in wanted if (lack := missing(fault.kind)) is not None}
    faults = [fault for fault in wanted if fault.title not in untried]
    if not faults:
        sys.exit(f"None of these can be done here: {untried or chosen.only}")
    began_s = time.monotonic()
    done = asyncio.run(go_on(chosen, faults))
    titles = [fault.title for fault in faults]
    done.sort(key=lambda played: titles.index(played.fault))
    table = render_table(done, untried)
    print(table)
    if chosen.report is not None:
        today = datetime.datetime.now(datetime.UTC).date()
        heading = f"{len(done)} faults in {(time.monotonic() - began_s) / 60:.0f} minutes, {today}, seed {chosen.seed}:"
        put_into(chosen.report, heading, table)
    return int(any(played.findings for played in done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
