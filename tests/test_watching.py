"""The dashboard and the alerts: everything that they ask for is told by a real gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from gateway import telemetry
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[1] / "docs"
METRIC = re.compile(r"\bgateway_[a-z_]+\b")


def expressions() -> dict[str, list[str]]:
    """Return the queries of each file."""
    panels = json.loads((DOCS / "grafana" / "gateway.json").read_text())["panels"]
    groups = yaml.safe_load((DOCS / "prometheus" / "alerts.yml").read_text())["groups"]
    return {
        "dashboard": [target["expr"] for panel in panels for target in panel.get("targets", ())],
        "alerts": [rule["expr"] for group in groups for rule in group["rules"]],
    }


async def told_by(gateway: RunningGateway) -> dict[str, set[str]]:
    """Return the names of the samples that a family has, as `/metrics` declares it."""
    async with httpx.AsyncClient(base_url=gateway.url) as scraper:
        text = (await scraper.get("/metrics")).text
    parts = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    found = {}
    for name, kind in re.findall(r"^# TYPE (gateway_\w+) (\w+)$", text, re.MULTILINE):
        if not name.endswith("_created"):
            found[name] = {name + part for part in parts[kind]}
    return found


@pytest.mark.parametrize("file", ["dashboard", "alerts"])
async def test_every_metric_that_is_asked_for_is_told(api: RunningGateway, file: str) -> None:
    """A panel or an alert that names a metric that is none would stay silent for ever."""
    known = set().union(*(await told_by(api)).values())
    asked = {name for expression in expressions()[file] for name in METRIC.findall(expression)}
    assert len(asked) > 10
    assert asked - known == set()


async def test_every_metric_has_its_place_on_the_dashboard(api: RunningGateway) -> None:
    """What is measured can be seen without knowing its name; the older count of blocked sends has a better one."""
    asked = {name for expression in expressions()["dashboard"] for name in METRIC.findall(expression)}
    unseen = {family for family, samples in (await told_by(api)).items() if not samples & asked}
    assert unseen == {"gateway_readers_lagging"}


def test_the_documents_list_what_there_is() -> None:
    """Every metric of the registry has one place in the table of the operations page, and no other stands there; none
    says nothing of what it is."""
    registered = {}
    for value in vars(telemetry).values():
        if isinstance(value, Counter | Gauge | Histogram):
            (family,) = value.describe()
            registered[family.name + ("_total" if family.type == "counter" else "")] = value
    rows = [
        row.split("|") for row in (DOCS / "operations.md").read_text().splitlines() if row.startswith("| `gateway_")
    ]
    listed = [name for row in rows for name in re.findall(r"`(gateway_[a-z_]+)", row[1])]
    assert sorted(listed) == sorted(registered)
    assert all(row[2].strip() for row in rows)


def test_panels_do_not_lie_on_one_another() -> None:
    """Each has an id and a place of its own."""
    panels = json.loads((DOCS / "grafana" / "gateway.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in panels})
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
