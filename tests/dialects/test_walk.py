"""One run, six APIs: whichever creates, pauses, answers or cancels it, all of them show it, list it and stream it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from ulid import ULID

from tests.support.native import accepted, get_log
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.work import claim_one, put_agent, write

pytestmark = pytest.mark.anyio

AGENT = "walker"
ASK = ("run.waiting_for_input", {"prompt": "Go on?", "request_id": "q1"})
DELTA = ("message.delta", {"content": "Hello"})
# What each API calls the statuses of the walk.
WORDS = {
    "queued": ("queued", "queued", "queued", "queued", "queued", "Created"),
    "running": ("running", "running", "executing", "running", "running", "Running"),
    "paused": ("paused", "paused", "paused", "paused", "interrupted", "Paused"),
    "waiting": ("waiting_for_input", "running", "waiting", "waiting_for_input", "interrupted", "WaitingForInput"),
    "completed": ("completed", "succeeded", "completed", "completed", "completed", "Completed"),
    "cancelled": ("cancelled", "cancelled", "canceled", "cancelled", "cancelled", "Cancelled"),
}


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway whose default agent is the walk's."""
    async with run_gateway(store.url, default_agent=AGENT) as running:
        yield running


class View:
    """A run as each API sees it."""

    def __init__(self, api: RunningGateway, run_id: str) -> None:
        self.api = api
        self.run_id = run_id
        self.uuid = str(uuid.UUID(bytes=ULID.from_str(run_id).bytes))

    @property
    def paths(self) -> list[str]:
        """Where each API shows the run: native, agents, jobs, threads, interrupts, processes."""
        return [
            f"/v1/runs/{self.run_id}",
            f"/api/agents/{AGENT}/runs/{self.run_id}",
            f"/compat/jobs/v1/runs/{self.run_id}",
            f"/compat/threads/v1/runs/{self.run_id}",
            f"/compat/interrupts/v1/runs/{self.uuid}",
            f"/runs/{self.run_id}",
        ]

    async def words(self) -> tuple[str, ...]:
        """Return its status in each API's words."""
        shown = [accepted(await self.api.client.get(path)) for path in self.paths]
        return tuple(body["status"] for body in shown)

    async def shows(self, status: str) -> None:
        """Check that every API shows it in `status`, and that every list has it under that word."""
        assert await self.words() == WORDS[status]
        _native, agents, jobs, threads, _interrupts, _processes = WORDS[status]
        assert self.run_id in await self._listed("/v1/runs", "id", status=WORDS[status][0])
        assert self.run_id in await self._listed(f"/api/agents/{AGENT}/runs", "run_id", status=agents)
        assert self.run_id in await self._listed("/compat/jobs/v1/runs", "id", status=jobs)
        assert self.run_id in await self._listed("/compat/threads/v1/runs", "run_id", status=threads)
        thread_id = accepted(await self.api.client.get(self.paths[0]))["thread_id"]
        assert self.run_id in await self._listed(f"/compat/threads/v1/threads/{thread_id}/runs", "run_id")

    async def _listed(self, path: str, name: str, **params: str) -> list[str]:
        answer = await self.api.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        body: Any = answer.json()
        runs = body if isinstance(body, list) else body.get("data", body.get("runs", body.get("items")))
        return [run[name] for run in runs]


async def post(api: RunningGateway, path: str, body: Any = None) -> Any:
    """Post and return the answer's body, None where it has none."""
    answer = await api.client.post(path, json=body) if body is not None else await api.client.post(path)
    assert answer.status_code in (200, 201, 204), (path, answer.text)
    return answer.json() if answer.content else None


async def create(api: RunningGateway, by: str) -> str:
    """Create a queued run through one of the APIs that can."""
    match by:
        case "native":
            return str((await post(api, "/v1/runs", {"agent_id": AGENT, "mode": "queued"}))["id"])
        case "threads":
            return str((await post(api, f"/compat/threads/v1/threads/{ULID()}/runs", {}))["run_id"])
    body = {"agent_id": AGENT, "process_id": AGENT, "name": "walk", "stage": "Published"}
    return str((await post(api, "/runs", body))["id"])


Step = Callable[[View], tuple[str, Any]]

PAUSE: dict[str, Step] = {
    "native": lambda view: (f"{view.paths[0]}/pause", {}),
    "agents": lambda view: (f"{view.paths[1]}/pause?triggered_by=walk", None),
    "jobs": lambda view: (f"{view.paths[2]}/pause", None),
}
RESUME: dict[str, Step] = {
    "native": lambda view: (f"{view.paths[0]}/resume", {}),
    "agents": lambda view: (f"{view.paths[1]}/resume", None),
    "jobs": lambda view: (f"{view.paths[2]}/resume", None),
    "interrupts": lambda view: (f"{view.paths[4]}/resume", None),
}
ANSWER: dict[str, Step] = {
    "native": lambda view: (f"{view.paths[0]}/input", {"content": "yes"}),
    "threads": lambda view: (f"{view.paths[3]}/input", {"content": "yes"}),
    "interrupts": lambda view: (f"{view.paths[4]}/resume", {"interrupt_id": "q1", "input": "yes"}),
}
CANCEL: dict[str, Callable[[View], tuple[str, str]]] = {
    "native": lambda view: ("POST", f"{view.paths[0]}/cancel"),
    "agents": lambda view: ("POST", f"{view.paths[1]}/cancel"),
    "jobs": lambda view: ("DELETE", view.paths[2]),
    "threads": lambda view: ("POST", f"{view.paths[3]}:cancel"),
}


async def started(api: RunningGateway, by: str) -> tuple[View, dict[str, Any]]:
    """Return a run that was created by one API and is executed by a worker."""
    await put_agent(api, AGENT, queue=AGENT)
    view = View(api, await create(api, by))
    await view.shows("queued")
    claimed = await claim_one(api, AGENT)
    assert claimed["run"]["id"] == view.run_id
    accepted(await write(api, claimed, LOG, DELTA))
    await view.shows("running")
    return view, claimed


@pytest.mark.parametrize("by", ["native", "threads", "processes"])
@pytest.mark.parametrize("pausing", PAUSE)
async def test_what_one_api_does_all_of_them_show(api: RunningGateway, by: str, pausing: str) -> None:
    """Created by one, paused, resumed and answered by others; the views agree after every step."""
    view, claimed = await started(api, by)
    for resuming in RESUME:
        await post(api, *PAUSE[pausing](view))
        await view.shows("paused")
        await post(api, *RESUME[resuming](view))
        await view.shows("running")
    accepted(await write(api, claimed, ASK))
    await view.shows("waiting")
    answering = list(ANSWER)[(list(PAUSE).index(pausing) + len(by)) % len(ANSWER)]
    await post(api, *ANSWER[answering](view))
    await view.shows("running")
    accepted(await write(api, claimed, COMPLETE))
    await view.shows("completed")
    received = [e for e in await get_log(api, view.run_id) if e["type"] == "run.input_received"]
    assert [event["data"]["content"] for event in received] == ["yes"]


@pytest.mark.parametrize("answering", ANSWER)
async def test_every_api_that_answers_answers_for_all(api: RunningGateway, answering: str) -> None:
    """The question is gone everywhere, and a second answer through any other is refused."""
    view, claimed = await started(api, "native")
    accepted(await write(api, claimed, ASK))
    await post(api, *ANSWER[answering](view))
    for other in ANSWER:
        path, body = ANSWER[other](view)
        answer = await api.client.post(path, json=body)
        assert answer.status_code == 409, (other, answer.text)
    accepted(await write(api, claimed, COMPLETE))


@pytest.mark.parametrize("cancelling", CANCEL)
async def test_every_api_that_cancels_cancels_for_all(api: RunningGateway, cancelling: str) -> None:
    """While its worker lets go the run shows as cancelled wherever there is no word for that, and then everywhere."""
    view, claimed = await started(api, "threads")
    method, path = CANCEL[cancelling](view)
    answer = await api.client.request(method, path)
    assert answer.status_code in (200, 204), answer.text
    assert await view.words() == ("cancelling", *WORDS["cancelled"][1:])
    accepted(await write(api, claimed, ("run.cancelled", {})))
    await view.shows("cancelled")


async def test_every_api_that_streams_shows_the_same_log(api: RunningGateway) -> None:
    """In its own frames, under the same cursors, to the same end."""
    view, claimed = await started(api, "processes")
    accepted(await write(api, claimed, DELTA, COMPLETE))
    log = await get_log(api, view.run_id)
    headers = {"accept": "text/event-stream"}
    streams = {
        "native": f"{view.paths[0]}/stream",
        "jobs": f"{view.paths[2]}/stream",
        "threads": f"{view.paths[3]}/events",
    }
    ids: dict[str, list[int]] = {}
    for name, path in streams.items():
        answer = await api.client.get(path, headers=headers)
        assert answer.status_code == 200
        lines = answer.text.split("\n")
        ids[name] = [int(line[4:].partition("-")[0]) for line in lines if line.startswith("id: ")]
    assert ids["native"] == [event["seq"] for event in log]
    assert ids["jobs"] == ids["native"]
    shown = {"run.started", "message.delta", "run.completed"}
    assert ids["threads"] == [event["seq"] for event in log if event["type"] in shown]
