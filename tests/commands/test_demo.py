"""The demo agent as its users meet it: a process that speaks to a real gateway."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import Process

from gateway.commands.demo.library import PACKAGE, count_words, find_topics, grep, open_library
from gateway.commands.demo.reports import REPORTS, write_report
from tests.support.native import get_log, get_run
from tests.support.processes import serving
from tests.support.running import RunningGateway, wait_until

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


@asynccontextmanager
async def demo(url: str, key: str, *arguments: str, reports: Path) -> AsyncIterator[Process]:
    """Run `gateway demo` as a process for as long as the block lasts."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "gateway", "demo", "--reports", str(reports), "--pace-s", "0.02", *arguments]
    process = await anyio.open_process(
        command, env={**environ, "GATEWAY_URL": url, "GATEWAY_KEY": key}, stdout=None, stderr=None
    )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def end_of(process: Process) -> int:
    """Return the status with which a process ends."""
    with anyio.fail_after(PATIENCE_S):
        return await process.wait()


async def find_run(gateway: RunningGateway, status: str) -> dict[str, Any]:
    """Return the newest run of the demo agent, once it stands in `status`."""
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        found[:] = (await gateway.client.get("/v1/runs", params={"agent_id": "demo"})).json()["data"]
        return bool(found and found[0]["status"] == status)

    await wait_until(is_there, timeout_s=PATIENCE_S)
    return found[0]


async def wait_status(gateway: RunningGateway, run_id: str, status: str) -> dict[str, Any]:
    """Return a run once it stands in `status`."""

    async def is_there() -> bool:
        return bool((await get_run(gateway, run_id))["status"] == status)

    await wait_until(is_there, timeout_s=PATIENCE_S)
    return await get_run(gateway, run_id)


def of_type(log: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the data of a log's events of one type."""
    return [event["data"] for event in log if event["type"] == kind]


async def test_a_run_does_what_it_says(gateway: RunningGateway, tmp_path: Path) -> None:
    """Its tool calls have the inputs, outputs and durations of real work, and its text says what they found."""
    async with demo(gateway.url, gateway.key, "--once", "--approval-s", "0.3", reports=tmp_path / "reports") as process:
        assert await end_of(process) == 0
    run = await find_run(gateway, "completed")
    log = await get_log(gateway, run["id"])
    calls = {call["call_id"]: call for call in of_type(log, "tool.call")}
    results = {result["call_id"]: result for result in of_type(log, "tool.result")}
    assert calls.keys() == results.keys()
    assert {call["name"] for call in calls.values()} >= {"list_files", "count_words", "grep", "read_file"}
    assert all(result["status"] == "ok" and result["duration_ms"] > 0 for result in results.values())
    [search] = [results[call_id]["output"] for call_id, call in calls.items() if call["name"] == "grep"]
    library, topic = open_library(), run["input"]["topic"]
    found = grep(library, topic)
    assert (search["lines"], search["files"]) == (found.lines, found.files)
    for call in calls.values():
        if call["name"] == "read_file":
            first, last = call["input"]["lines"]
            text = "\n".join((library.root / call["input"]["path"]).read_text().splitlines()[first - 1 : last])
            assert results[call["call_id"]]["output"]["text"] == text
    said = "".join(piece["content"] for piece in of_type(log, "message.delta"))
    assert [message["content"] for message in of_type(log, "message.completed")] == [said]
    assert said.startswith(f"{found.lines} line")
    steps = {event["step_id"] for event in log if event["type"].startswith("tool.")}
    assert steps == {"step-1", "step-2", "step-3"}
    assert [note["state"]["files"] for note in of_type(log, "checkpoint.created")] == [found.files]


async def test_without_an_answer_nothing_is_published(gateway: RunningGateway, tmp_path: Path) -> None:
    """The deadline's default is no: the run completes, says so, and leaves no file."""
    reports = tmp_path / "reports"
    async with demo(gateway.url, gateway.key, "--once", "--approval-s", "0.3", reports=reports) as process:
        assert await end_of(process) == 0
    run = await find_run(gateway, "completed")
    assert run["output"]["published"] is False
    assert run["output"]["reason"] == "nobody answered in time"
    assert not reports.exists()


@pytest.mark.parametrize("approved", [True, False])
async def test_a_report_is_published_only_with_leave(
    gateway: RunningGateway, tmp_path: Path, *, approved: bool
) -> None:
    """Yes writes the file, and sets it as an output; no does neither."""
    reports = tmp_path / "reports"
    async with demo(gateway.url, gateway.key, "--once", reports=reports) as process:
        run = await find_run(gateway, "waiting_for_input")
        await gateway.client.post(f"/v1/runs/{run['id']}/input", json={"content": approved})
        assert await end_of(process) == 0
    output = (await find_run(gateway, "completed"))["output"]
    published = of_type(await get_log(gateway, run["id"]), "output.set")
    assert output["published"] is approved
    if approved:
        report = reports / f"{run['id']}.md"
        assert output["report"] == str(report)
        assert [report.read_text()] == [item["value"] for item in published]
    else:
        assert (output["reason"], published, reports.exists()) == ("declined", [], False)


async def test_a_cancelled_run_stops_and_says_so(gateway: RunningGateway, tmp_path: Path) -> None:
    """The agent confirms long before the grace ends, whatever it was at, and leaves nothing behind."""
    async with demo(gateway.url, gateway.key, "--once", "--pace-s", "0.3", reports=tmp_path / "reports") as process:
        run = await find_run(gateway, "running")
        await gateway.client.post(f"/v1/runs/{run['id']}/cancel", json={"reason": "enough"})
        with anyio.fail_after(5):
            assert await process.wait() == 1
    run = await find_run(gateway, "cancelled")
    last = (await get_log(gateway, run["id"]))[-1]
    assert (last["type"], last["data"]["reason"]) == ("run.cancelled", "enough")
    assert last["data"]["actor"]["kind"] == "key"
    assert not (tmp_path / "reports").exists()


async def test_a_paused_run_holds_until_it_is_resumed(gateway: RunningGateway, tmp_path: Path) -> None:
    """Between two actions it stands still; resumed, it goes on to its end."""
    options = ("--once", "--pace-s", "0.1", "--approval-s", "0.3")
    async with demo(gateway.url, gateway.key, *options, reports=tmp_path / "reports") as process:
        run = await find_run(gateway, "running")
        await gateway.client.post(f"/v1/runs/{run['id']}/pause")
        # Long enough for half a dozen actions, had it gone on.
        await anyio.sleep(0.8)
        await gateway.client.post(f"/v1/runs/{run['id']}/resume")
        assert await end_of(process) == 0
    await find_run(gateway, "completed")
    types = [event["type"] for event in await get_log(gateway, run["id"])]
    # At most what was under way when the pause came.
    assert types.index("run.resumed") - types.index("run.paused") <= 3


async def test_a_stopped_agent_leaves_no_run_behind(gateway: RunningGateway, tmp_path: Path) -> None:
    """SIGTERM ends the agent in order, and its run with it."""
    async with demo(gateway.url, gateway.key, reports=tmp_path / "reports") as process:
        await find_run(gateway, "waiting_for_input")
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(5):
            assert await process.wait() == 0
    run = await find_run(gateway, "cancelled")
    last = (await get_log(gateway, run["id"]))[-1]
    assert last["data"]["reason"] == "the demo agent was stopped"


async def test_runs_of_others_are_performed_too(gateway: RunningGateway, tmp_path: Path) -> None:
    """A topic of one's own, a topic that nothing speaks of, one that makes no sense, and a retry."""
    before = await gateway.create_run(agent_id="demo", input={"topic": "zyzzyva"})
    async with demo(gateway.url, gateway.key, "--approval-s", "0.3", reports=tmp_path / "reports"):
        await find_run(gateway, "running")
        senseless = await gateway.create_run(agent_id="demo", input={"topic": 5})
        unfound = await wait_status(gateway, before["id"], "completed")
        assert unfound["output"] == {
            "topic": "zyzzyva",
            "lines": 0,
            "files": 0,
            "published": False,
            "reason": "nothing was found",
        }
        failed = await wait_status(gateway, senseless["id"], "failed")
        assert failed["error"]["code"] == "invalid_topic"
        again = (await gateway.client.post(f"/v1/runs/{senseless['id']}/retry")).json()
        await wait_status(gateway, again["id"], "failed")
        await gateway.client.post(f"/v1/runs/{before['id']}/restart")
        assert (await wait_status(gateway, before["id"], "completed"))["attempt"] == 2


async def test_a_failure_is_told_as_one(gateway: RunningGateway, tmp_path: Path) -> None:
    """A report that cannot be written fails the step and the run, in the system's own words."""
    (tmp_path / "file").touch()
    async with demo(gateway.url, gateway.key, "--once", reports=tmp_path / "file" / "reports") as process:
        run = await find_run(gateway, "waiting_for_input")
        await gateway.client.post(f"/v1/runs/{run['id']}/input", json={"content": True})
        assert await end_of(process) == 1
    run = await find_run(gateway, "failed")
    assert "NotADirectoryError" in run["error"]["message"]
    assert of_type(await get_log(gateway, run["id"]), "step.failed")


async def test_a_gateway_that_is_killed_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    """The agent goes on where it was: the log is dense and its text is whole."""
    async with serving(tmp_path / "data") as gateway, gateway.client() as client:
        options = ("--once", "--pace-s", "0.3", "--approval-s", "0.3")
        async with demo(gateway.url, gateway.key, *options, reports=tmp_path / "reports") as process:
            await wait_until(lambda: _has_begun(client), timeout_s=PATIENCE_S)
            await gateway.kill()
            await gateway.start()
            assert await end_of(process) == 0
        [run] = (await client.get("/v1/runs")).json()["data"]
        log = (await client.get(f"/v1/runs/{run['id']}/events")).json()["data"]
        assert run["status"] == "completed"
        assert [event["seq"] for event in log] == list(range(1, run["head_seq"] + 1))
        said = "".join(piece["content"] for piece in of_type(log, "message.delta"))
        assert of_type(log, "message.completed")[0]["content"] == said


async def _has_begun(client: httpx.AsyncClient) -> bool:
    runs = (await client.get("/v1/runs")).json()["data"]
    return bool(runs and runs[0]["head_seq"] > 6)


async def test_the_gateway_runs_the_agent_beside_itself(tmp_path: Path) -> None:
    """`gateway serve --demo` is enough to see something live, and takes the agent along when it stops."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "gateway", "serve", "--demo", "--port", "0", "--data-dir", str(tmp_path)]
    async with await anyio.open_process(command, env=environ, stderr=None) as process:
        assert process.stdout is not None
        with anyio.fail_after(PATIENCE_S):
            said = ""
            while not (found := re.search(r"^gateway on (\S+)\n(?:.*\n)*?  key +(\S+) ", said, re.MULTILINE)):
                said += (await process.stdout.receive()).decode()
        url, key = found.groups()
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
            await wait_until(lambda: _has_begun(client), timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        assert await end_of(process) == 0


def test_the_sources_are_read_where_there_are_no_documents(tmp_path: Path) -> None:
    """Installed without README and docs, the agent searches the package itself."""
    shutil.copytree(PACKAGE / "commands" / "demo", tmp_path / "site" / "gateway")
    library = open_library(tmp_path / "site" / "gateway")
    assert library.kind == "sources"
    assert "gateway/library.py" in library.paths
    assert count_words(library)["words"] > 1000
    assert "library" in find_topics(library)


def test_documents_are_preferred_and_topics_name_something(tmp_path: Path) -> None:
    """A topic is a heading's or code's word that stands in several documents, but not in most."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# A lighthouse\n\nIt has a `keeper`; common common.\n")
    (tmp_path / "docs" / "keeper.md").write_text("The keeper of a Lighthouse.\n\n| keepers | common |\n")
    (tmp_path / "docs" / "other.md").write_text("# Unique\n\nNothing common.\n")
    library = open_library(tmp_path / "gateway")
    assert library.paths == ("README.md", "docs/keeper.md", "docs/other.md")
    assert find_topics(library) == ["keeper", "lighthouse"]
    found = grep(library, "KEEPER")
    assert (found.lines, found.files) == (3, {"docs/keeper.md": 2, "README.md": 1})
    assert found.first["docs/keeper.md"].text == "The keeper of a Lighthouse."
    assert grep(library, "eeper").lines == 0


def test_reports_do_not_pile_up(tmp_path: Path) -> None:
    """Only the newest are kept, and a write leaves nothing but the report."""
    for number in range(REPORTS + 5):
        write_report(tmp_path / "reports" / f"run-{number:03}.md", "text")
    kept = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert kept == [f"run-{number:03}.md" for number in range(5, REPORTS + 5)]
