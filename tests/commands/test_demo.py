"""The demo agent as its users meet it: a worker process of a real gateway."""

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
import psutil
import pytest
from anyio.abc import Process

from gateway.commands.demo.library import PACKAGE, count_words, find_topics, grep, open_library
from gateway.commands.demo.reports import REPORTS, save_report
from tests.support.native import accepted, get_log, get_run
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


async def ask_for(gateway: RunningGateway, wish: Any) -> dict[str, Any]:
    """Return a run of the demo agent that somebody else created."""
    about = {"agent_id": "demo", "mode": "queued", "queue": "demo", "input": wish}
    return accepted(await gateway.client.post("/v1/runs", json=about), 201)


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
    steps = {step["step_id"]: step["name"] for step in of_type(log, "step.started")}
    assert list(steps.values()) == ["survey the library", f"search for “{topic}”", "read the passages"]
    assert {event["step_id"] for event in log if event["type"].startswith("tool.")} == steps.keys()
    assert [note["state"]["found"]["files"] for note in of_type(log, "checkpoint.created")] == [found.files]
    assert (run["mode"], run["queue"], run["agent_version"]) == ("queued", "demo", 1)
    assert [event["type"] for event in log[:4]] == ["run.created", "run.queued", "run.dequeued", "run.started"]


async def test_a_run_that_fails_once_goes_on_from_its_checkpoint(gateway: RunningGateway, tmp_path: Path) -> None:
    """The second attempt searches nothing again, and all that is shown in the end is said once."""
    async with demo(gateway.url, gateway.key, "--approval-s", "0.3", reports=tmp_path / "reports"):
        # The first that it asks of itself is one.
        run = await find_run(gateway, "completed")
    assert (run["attempt"], run["failed_attempts"], run["input"]["fail_once"]) == (2, 1, True)
    log = await get_log(gateway, run["id"])
    assert [failed["error"]["code"] for failed in of_type(log, "run.attempt_failed")] == ["OnPurpose"]
    tools = [(event["attempt"], event["data"]["name"]) for event in log if event["type"] == "tool.call"]
    assert [name for attempt, name in tools if attempt == 1] == ["list_files", "count_words", "grep", "read_file"]
    assert {name for attempt, name in tools if attempt == 2} == {"read_file"}
    (message,) = accepted(await gateway.client.get(f"/v1/runs/{run['id']}/messages"))["data"]
    topic = run["input"]["topic"]
    assert message["content"].startswith(f"{run['output']['lines']} line")
    assert message["content"].count(f"of “{topic}”, in") == 1
    (checkpoint,) = of_type(log, "checkpoint.created")
    first, last = of_type(log, "run.attempt_started")[0]["supersedes"]
    said_again = [e["data"]["content"] for e in log if e["type"] == "message.delta" and not first <= e["seq"] <= last]
    assert "".join(said_again) == message["content"]
    assert message["content"].startswith(checkpoint["state"]["said"])


async def test_without_an_answer_nothing_is_published(gateway: RunningGateway, tmp_path: Path) -> None:
    """The deadline's default is no: the run completes, says so, and leaves no file."""
    reports = tmp_path / "reports"
    async with demo(gateway.url, gateway.key, "--once", "--approval-s", "0.3", reports=reports) as process:
        assert await end_of(process) == 0
    run = await find_run(gateway, "completed")
    assert run["output"]["published"] is False
    (answer,) = of_type(await get_log(gateway, run["id"]), "run.input_received")
    assert (answer["content"], answer["reason"]) == (False, "deadline")
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
        assert (published, reports.exists()) == ([], False)


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
        heads: list[int] = []

        async def is_still() -> bool:
            # Longer than the pause before any of its actions.
            await anyio.sleep(0.4)
            heads.append((await get_run(gateway, run["id"]))["head_seq"])
            return len(heads) > 2 and len(set(heads[-3:])) == 1

        await wait_until(is_still, timeout_s=PATIENCE_S)
        assert (await get_run(gateway, run["id"]))["status"] == "paused"
        await gateway.client.post(f"/v1/runs/{run['id']}/resume")
        assert await end_of(process) == 0
    assert (await find_run(gateway, "completed"))["head_seq"] > heads[-1] + 1


async def test_a_stopped_agent_gives_its_run_back(gateway: RunningGateway, tmp_path: Path) -> None:
    """SIGTERM ends the agent in order; the next goes on, in the same attempt, with the answer that came meanwhile."""
    reports = tmp_path / "reports"
    async with demo(gateway.url, gateway.key, reports=reports) as process:
        run = await find_run(gateway, "waiting_for_input")
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(5):
            assert await process.wait() == 0
    left = await get_run(gateway, run["id"])
    assert (left["status"], left["lease"], left["attempt"]) == ("waiting_for_input", None, 2)
    accepted(await gateway.client.post(f"/v1/runs/{run['id']}/input", json={"content": True}))
    async with demo(gateway.url, gateway.key, "--once", "--approval-s", "0.3", reports=reports):
        ended = await wait_status(gateway, run["id"], "completed")
    assert (ended["attempt"], ended["output"]["published"]) == (2, True)
    assert (reports / f"{run['id']}.md").read_text().startswith("# Where")


async def test_runs_of_others_are_executed_too(gateway: RunningGateway, tmp_path: Path) -> None:
    """A topic of one's own, a topic that nothing speaks of, one that makes no sense, a retry and a restart."""
    before = await ask_for(gateway, {"topic": "zyzzyva"})
    async with demo(gateway.url, gateway.key, "--approval-s", "0.3", reports=tmp_path / "reports"):
        unfound = await wait_status(gateway, before["id"], "completed")
        assert unfound["output"] == {"topic": "zyzzyva", "lines": 0, "files": 0, "published": False}
        senseless = await ask_for(gateway, {"topic": 5})
        failed = await wait_status(gateway, senseless["id"], "failed")
        assert (failed["error"]["code"], failed["attempt"]) == ("invalid_topic", 1)
        again = accepted(await gateway.client.post(f"/v1/runs/{senseless['id']}/retry"), 201)
        await wait_status(gateway, again["id"], "failed")
        accepted(await gateway.client.post(f"/v1/runs/{before['id']}/restart"))
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
        log = (await client.get(f"/v1/runs/{run['id']}/events", params={"limit": 1000})).json()["data"]
        assert run["status"] == "completed"
        assert [event["seq"] for event in log] == list(range(1, run["head_seq"] + 1))
        said = "".join(piece["content"] for piece in of_type(log, "message.delta"))
        assert of_type(log, "message.completed")[0]["content"] == said


async def _has_begun(client: httpx.AsyncClient) -> bool:
    runs = (await client.get("/v1/runs")).json()["data"]
    return bool(runs and runs[0]["head_seq"] > 6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_gateway_runs_the_agent_beside_itself(tmp_path: Path, number: signal.Signals) -> None:
    """`gateway serve --demo` is enough to see something live, and leaves no process behind when it stops."""
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
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("demo" in member.cmdline() for member in family)
        process.send_signal(number)
        assert await end_of(process) == 0
        _gone, left = psutil.wait_procs(family, timeout=1)
        assert left == []


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
        save_report(tmp_path / "reports" / f"run-{number:03}.md", "text")
    kept = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert kept == [f"run-{number:03}.md" for number in range(5, REPORTS + 5)]
