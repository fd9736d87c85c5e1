"""Dialects can be added and taken away: one folder, and one line."""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.dialects
from gateway import app
from gateway.store.log import Entry
from tests.dialects.native.streaming import read_stream
from tests.dialects.stateless import check_stateless, logs
from tests.support.native import accepted
from tests.support.running import COMPLETE, LOG, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "gateway"
BLOCK = re.compile(r"^`gateway/dialects/tasks/(\w+\.py)`:\n\n```python\n(.*?)^```$", re.M | re.S)


def imports_of(path: Path) -> set[str]:
    """Return what a module imports, by full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("name", app.DIALECTS)
def test_nothing_but_its_own_folder_knows_a_dialect(name: str) -> None:
    """No module outside imports anything of it: its folder and its name in `DIALECTS` are all there is to delete."""
    folder = SOURCES / "dialects" / name
    module = f"gateway.dialects.{name}"
    knowing = [
        str(path)
        for path in SOURCES.rglob("*.py")
        if folder not in path.parents
        and any(each == module or each.startswith(f"{module}.") for each in imports_of(path))
    ]
    assert knowing == []
    assert (SOURCES / "app.py").read_text().count(f'"{name}"') == 1


async def test_without_dialects_the_rest_works(store: RunningStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The native API, its description and that of the streams are whole, and the dialects' places are not found."""
    for module in [each for each in sys.modules if each.startswith("gateway.dialects.") and ".native" not in each]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(app, "DIALECTS", ())
    async with run_gateway(store.url) as running:
        run = await running.create_run()
        assert (await running.client.get(f"/v1/runs/{run['id']}")).status_code == 200
        for path in ("/openapi.json", "/asyncapi.json", "/docs"):
            assert (await running.client.get(path)).status_code == 200
        assert (await running.client.get("/compat/jobs/v1/runs")).status_code == 404


async def test_a_sixth_dialect_is_a_folder_and_a_line(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The miniature of docs/dialects.md as it stands there: served, described, in its own words."""
    write_miniature(tmp_path / "tasks")
    monkeypatch.setattr(gateway.dialects, "__path__", [*gateway.dialects.__path__, str(tmp_path)])
    monkeypatch.setattr(app, "DIALECTS", (*app.DIALECTS, "tasks"))
    async with run_gateway(store.url) as running:
        await check_tasks(running.client)
        run = await running.create_run()
        accepted(await running.append(run["id"], LOG, ("message.delta", {"content": "hi"}), COMPLETE))
        stream = await read_stream(running, f"/compat/tasks/tasks/{run['id']}/talk")
        assert [frame.data for frame in stream.parser.frames] == [{"text": "hi"}]
        assert stream.ended == "clean"


def write_miniature(folder: Path) -> None:
    """Write the files that the page shows."""
    folder.mkdir()
    shown = BLOCK.findall((ROOT / "docs" / "dialects.md").read_text())
    assert [name for name, _ in shown] == ["wire.py", "project.py", "routes.py"]
    (folder / "__init__.py").touch()
    for name, source in shown:
        (folder / name).write_text(source)


async def check_tasks(client: httpx.AsyncClient) -> None:
    """Look at a task, stop it, stop it again."""
    body = {"agent_id": "a", "mode": "direct"}
    run_id = accepted(await client.post("/v1/runs", json=body), 201)["id"]
    base = f"/compat/tasks/tasks/{run_id}"
    assert accepted(await client.get(base)) == {"task": run_id, "state": "waiting"}
    refused = await client.post(f"{base}/stop")
    assert (refused.status_code, list(refused.json())) == (409, ["trouble"])
    accepted(await client.post(f"/v1/runs/{run_id}/events", json={"type": LOG[0], "data": LOG[1]}))
    assert accepted(await client.post(f"{base}/stop")) == {"task": run_id, "state": "broken"}
    assert (await client.get("/compat/tasks/nothing")).json() == {"trouble": "There is nothing at this path."}
    paths = accepted(await client.get("/compat/tasks/openapi.json"))["paths"]
    assert paths.keys() == {f"/tasks/{{run_id}}{rest}" for rest in ("", "/stop", "/talk")}
    channels = accepted(await client.get("/asyncapi.json"))["channels"]
    assert "/compat/tasks/tasks/{run_id}/talk" in [channel["address"] for channel in channels.values()]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The miniature's projection."""
    folder = tmp_path_factory.mktemp("miniature")
    write_miniature(folder / "tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.dialects, "__path__", [*gateway.dialects.__path__, str(folder)])
        return import_module("gateway.dialects.tasks.routes").TALK


@given(logs(), st.integers(0, 12))
def test_the_miniature_s_stream_may_be_cut_anywhere(talk: object, entries: list[Entry], cut: int) -> None:
    """It is held to what every dialect is held to."""
    check_stateless(talk, entries, cut)  # type: ignore[arg-type]
