"""`python -m loadtest SCENARIO…`: measure the gateway beside its peers; tables, JSON and plots."""

from __future__ import annotations

import json
from pathlib import Path

import click

from loadtest import machine, targets
from loadtest.measuring import Lost, Row, is_noisy, measure
from loadtest.report import plot, table
from loadtest.scenarios import INSIDE, SCENARIOS, SHORT

OUT = Path("loadtest/out")
GROUPS = {"all": (*SCENARIOS, *INSIDE), "short": SHORT}


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice([*GROUPS, *SCENARIOS, *INSIDE]))
@click.option("--against", default=",".join(targets.NAMES), show_default=True, help="Targets, comma-joined.")
@click.option("--repeats", default=3, show_default=True, help="Interleaved repeats; medians are shown.")
@click.option("--short", is_flag=True, help="Fewer rates and shorter runs.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path), help="Where results are kept.")
def main(names: tuple[str, ...], against: str, repeats: int, short: bool, out: Path) -> None:
    """Measure scenarios; nothing else should run on the machine meanwhile."""
    wanted = _installed(against.split(","))
    short = short or "short" in names
    click.echo(machine.describe())
    for name in dict.fromkeys(each for given in names for each in GROUPS.get(given, (given,))):
        if name in INSIDE:
            about, look = INSIDE[name]
            _keep(name, about, look(short), out)
            continue
        scenario = SCENARIOS[name]
        click.echo(f"\n## {name}: {scenario.about}", err=True)
        cases = scenario.cases(wanted, short)
        try:
            rows = measure(cases, repeats=repeats, compare=scenario.compare, say=_mumble)
        except Lost as lost:
            raise SystemExit(f"{name}: events were lost, repeated or late: {lost}") from lost
        _keep(name, f"{scenario.about} × compares {scenario.compare}.", rows, out)


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
