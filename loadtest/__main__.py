"""`python -m loadtest SCENARIO`: run a scenario against the gateway and a peer, and print a table with ratios."""

from __future__ import annotations

import json
from pathlib import Path

import click

from loadtest import append, backlog, fanout
from loadtest.report import table

OUT = Path("loadtest/out")


@click.group()
def main() -> None:
    """Measure the gateway; nothing else should run on the machine meanwhile."""


@main.command("fanout")
@click.option("--readers", default=1_000, show_default=True, help="SSE readers of one run.")
@click.option("--rate", "rates", multiple=True, default=[10, 100], show_default=True, help="Events a second.")
@click.option("--seconds", default=4.0, show_default=True, help="How long each rate is held.")
@click.option("--against", default="gateway,naive", show_default=True, help="gateway, naive; comma-joined.")
@click.option("--repeats", default=3, show_default=True, help="Interleaved repeats; medians are shown.")
@click.option("--fsync", default="always", type=click.Choice(["always", "everysec"]), show_default=True)
def run_fanout(readers: int, rates: tuple[int, ...], seconds: float, against: str, repeats: int, fsync: str) -> None:
    """One run, many SSE readers: CPU a delivery and latency."""
    rows = fanout.measure(
        against.split(","), readers=readers, rates=rates, seconds=seconds, repeats=repeats, fsync=fsync
    )
    _show("fanout", rows)


@main.command("append")
@click.option("--seconds", default=3.0, show_default=True, help="How long each case is held.")
@click.option("--fsync", default="always", type=click.Choice(["always", "everysec"]), show_default=True)
def run_append(seconds: float, fsync: str) -> None:
    """Appends over warm HTTP connections: rate and latency."""
    _show("append", append.measure(seconds=seconds, fsync=fsync))


@main.command("backlog")
@click.option("--size", "sizes", multiple=True, default=[1_000, 10_000, 100_000], show_default=True)
@click.option("--claims", default=200, show_default=True, help="Claims at each size.")
@click.option("--fsync", default="always", type=click.Choice(["always", "everysec"]), show_default=True)
def run_backlog(sizes: tuple[int, ...], claims: int, fsync: str) -> None:
    """Claims and lists with more and more queued runs."""
    _show("backlog", backlog.measure_backlog(sizes=sorted(sizes), claims=claims, fsync=fsync))


@main.command("idle")
@click.option("--runs", default=10_000, show_default=True, help="Delayed runs.")
@click.option("--seconds", default=20.0, show_default=True, help="How long it is watched.")
@click.option("--fsync", default="always", type=click.Choice(["always", "everysec"]), show_default=True)
def run_idle(runs: int, seconds: float, fsync: str) -> None:
    """A gateway that only waits: its share of a core."""
    _show("idle", backlog.measure_idle(runs=runs, seconds=seconds, fsync=fsync))


def _show(name: str, rows: list[dict[str, object]]) -> None:
    click.echo(table(rows))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
