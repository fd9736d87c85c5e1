"""`python -m loadtest SCENARIO…`: measure the gateway beside its peers; tables, JSON and plots."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from loadtest import machine, targets
from loadtest.measuring import FAILED, Row, is_noisy, measure
from loadtest.report import plot, table
from loadtest.scenarios import INSIDE, SCENARIOS, SHORT

OUT = Path("loadtest/out")
MINUTES, QUICK_MINUTES = 18.0, 12.0
GROUPS = {"all": (*SCENARIOS, *INSIDE), "short": SHORT}


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice([*GROUPS, *SCENARIOS, *INSIDE]))
@click.option("--against", default=",".join(targets.NAMES), show_default=True, help="Targets, comma-joined.")
@click.option("--repeats", default=3, show_default=True, help="Interleaved repeats; medians are shown.")
@click.option("--short", "--quick", is_flag=True, help="Fewer rates and shorter runs.")
@click.option("--minutes", type=float, help="When repeats end (18; quick 12); the first of each is always made.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path), help="Where results are kept.")
def main(names: tuple[str, ...], against: str, repeats: int, short: bool, minutes: float | None, out: Path) -> None:
    """Measure scenarios; nothing else should run on the machine meanwhile.

    Every case is measured once, whatever `--minutes` says, and again while there is time. It fails when the gateway
    lost an event or refused a request.
    """
    wanted, failed = _installed(against.split(",")), False
    short = short or "short" in names
    click.echo(machine.describe())
    asked = list(dict.fromkeys(each for given in names for each in GROUPS.get(given, (given,))))
    ends_s = time.monotonic() + (minutes or (QUICK_MINUTES if short else MINUTES)) * 60
    for index, name in enumerate(asked):
        if name in INSIDE:
            about, look = INSIDE[name]
            _keep(name, about, look(short), out)
            continue
        scenario = SCENARIOS[name]
        click.echo(f"\n## {name}: {scenario.about}", err=True)
        cases = scenario.cases(wanted, short)
        # What is left of the time is shared by those that are left.
        until_s = time.monotonic() + (ends_s - time.monotonic()) / (len(asked) - index)
        rows = measure(cases, repeats=repeats, compare=scenario.compare, say=_mumble, until_s=until_s)
        failed |= any(row["target"] == "gateway" and FAILED in row.values() for row in rows)
        _keep(name, f"{scenario.about} × compares {scenario.compare}.", rows, out)

    if failed:
        raise SystemExit("the gateway did not get through: events were lost, repeated or late, or refused")


def _mumble(text: str) -> None:
    click.echo(f"   {text}", err=True)


def _installed(against: list[str]) -> list[str]:
    unknown = set(against) - set(targets.NAMES)
    if unknown:
        raise SystemExit(f"unknown targets {', '.join(sorted(unknown))}; there are {', '.join(targets.NAMES)}")
    missing = [name for name in against if not targets.is_installed(name)]
    if missing:
        click.echo(f"left out, not installed (Debian: nginx libnginx-mod-nchan redis-server): {', '.join(missing)}")
    return [name for name in against if name not in missing]


def _keep(name: str, about: str, rows: list[Row], out: Path) -> None:
    text = table(rows)
    click.echo(f"\n## {name}\n\n{about}\n\n{text}")
    if any(is_noisy(row) for row in rows):
        click.echo("\nRows marked noisy shared the machine with something else, or their repeats lie far apart.")
    out.mkdir(parents=True, exist_ok=True)
    kept = {"machine": machine.describe(), "scenario": name, "about": about, "rows": rows}
    (out / f"{name}.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    (out / f"{name}.md").write_text(text + "\n")
    (out / f"{name}.svg").write_text(plot(about, rows))


if __name__ == "__main__":
    main()
