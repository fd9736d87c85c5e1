"""The dashboard and the alerts: everything that they ask for is told by a real gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
import yaml

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


async def test_every_metric_is_told_of_in_the_documents(api: RunningGateway) -> None:
    """The operations page says what each is for."""
    page = (DOCS / "operations.md").read_text()
    assert {family for family in await told_by(api) if family not in page} == set()


def test_panels_do_not_lie_on_one_another() -> None:
    """Each has an id and a place of its own."""
    panels = json.loads((DOCS / "grafana" / "gateway.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in panels})
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
