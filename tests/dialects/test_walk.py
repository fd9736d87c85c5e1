"""One run, six APIs: whichever creates, pauses, answers or cancels it, all of them show it, list it and stream it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from itertools import product
from typing import Any

import pytest
from ulid import ULID

from tests.support.native import accepted, get_log
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.work import claim_one, put_agent, write

pytestmark = pytest.mark.anyio

AGENT = "walker"
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
        native = accepted(await self.api.client.get(self.paths[0]))
        assert self.run_id in await self._listed(f"/v1/threads/{native['thread_id']}/runs", "id")
        assert self.run_id in await self._listed(f"/compat/threads/v1/threads/{native['thread_id']}/runs", "run_id")
        assert self.run_id in await self._listed("/runs", "id", process_id=AGENT, agent_id=AGENT)

    async def _listed(self, path: str, name: str, **params: str) -> list[str]:
        answer = await self.api.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        body: Any = answer.json()
        runs = body if isinstance(body, list) else body.get("data", body.get("runs", body.get("items")))
        return [run[name] for run in runs]


async def post(api: RunningGateway, path: str, body: Any = None, **headers: str) -> Any:
    """Post and return the answer's body, None where it has none."""
    sent = {} if body is None else {"json": body}
    answer = await api.client.post(path, headers=headers, **sent)
    assert answer.status_code in (200, 201, 204), (path, answer.text)
    return answer.json() if answer.content else None


CREATING = ("native", "agents", "jobs", "threads", "processes")
"""The APIs that can make a run: agents and jobs make theirs of one that has ended."""


async def create(api: RunningGateway, by: str, **headers: str) -> str:
    """Create a queued run through one of the APIs that can."""
    match by:
        case "native":
            return str((await post(api, "/v1/runs", {"agent_id": AGENT, "mode": "queued"}, **headers))["id"])
        case "agents":
            return str((await post(api, f"{(await ended(api)).paths[1]}/retry", **headers))["run_id"])
        case "jobs":
            return str((await post(api, f"{(await ended(api)).paths[2]}/replay", **headers))["id"])
        case "threads":
            return str((await post(api, f"/compat/threads/v1/threads/{ULID()}/runs", {}, **headers))["run_id"])
    body = {"agent_id": AGENT, "process_id": AGENT, "name": "walk", "stage": "Published"}
    return str((await post(api, "/runs", body, **headers))["id"])


async def ended(api: RunningGateway) -> View:
    """Return a run that was cancelled before it began."""
    view = View(api, await create(api, "native"))
    await post(api, f"{view.paths[0]}/cancel")
    return view


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
ANSWER: dict[str, Callable[[View, str], tuple[str, Any]]] = {
    "native": lambda view, _: (f"{view.paths[0]}/input", {"content": "yes"}),
    "threads": lambda view, _: (f"{view.paths[3]}/input", {"content": "yes"}),
    "interrupts": lambda view, asked: (f"{view.paths[4]}/resume", {"interrupt_id": asked, "input": "yes"}),
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


async def put_question(api: RunningGateway, claimed: dict[str, Any]) -> str:
    """Have the worker ask, and return the question's id."""
    asked = f"q-{ULID()}"
    accepted(await write(api, claimed, ("run.waiting_for_input", {"prompt": "Go on?", "request_id": asked})))
    return asked


@pytest.mark.parametrize("by", CREATING)
async def test_what_one_api_does_all_of_them_show(api: RunningGateway, by: str) -> None:
    """Created by one, paused, resumed and answered by each of the others; the views agree after every step."""
    view, claimed = await started(api, by)
    for pausing, resuming in product(PAUSE, RESUME):
        await post(api, *PAUSE[pausing](view))
        await view.shows("paused")
        await post(api, *RESUME[resuming](view))
        await view.shows("running")
    for answering in ANSWER:
        asked = await put_question(api, claimed)
        await view.shows("waiting")
        await post(api, *ANSWER[answering](view, asked))
        await view.shows("running")
    accepted(await write(api, claimed, COMPLETE))
    await view.shows("completed")
    received = [e for e in await get_log(api, view.run_id) if e["type"] == "run.input_received"]
    assert [event["data"]["content"] for event in received] == ["yes"] * len(ANSWER)


@pytest.mark.parametrize("by", CREATING)
async def test_a_run_is_in_the_trace_of_the_request_that_made_it(api: RunningGateway, by: str) -> None:
    """Through whichever API it came."""
    trace_id = uuid.uuid4().hex
    run_id = await create(api, by, traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    assert accepted(await api.client.post(f"/v1/runs/{run_id}/cancel"))["trace_id"] == trace_id


@pytest.mark.parametrize("answering", ANSWER)
async def test_every_api_that_answers_answers_for_all(api: RunningGateway, answering: str) -> None:
    """The question is gone everywhere, and a second answer through any other is refused."""
    view, claimed = await started(api, "native")
    asked = await put_question(api, claimed)
    await post(api, *ANSWER[answering](view, asked))
    for other in ANSWER:
        path, body = ANSWER[other](view, asked)
        answer = await api.client.post(path, json=body)
        assert answer.status_code == 409, (other, answer.text)
    accepted(await write(api, claimed, COMPLETE))


@pytest.mark.parametrize(("by", "cancelling"), [*product(CREATING, CANCEL)])
async def test_every_api_that_cancels_cancels_for_all(api: RunningGateway, by: str, cancelling: str) -> None:
    """While its worker lets go the run shows as cancelled wherever there is no word for that, and then everywhere."""
    view, claimed = await started(api, by)
    method, path = CANCEL[cancelling](view)
    answer = await api.client.request(method, path)
    assert answer.status_code in (200, 204), answer.text
    assert await view.words() == ("cancelling", *WORDS["cancelled"][1:])
    accepted(await write(api, claimed, ("run.cancelled", {})))
    await view.shows("cancelled")


@pytest.mark.parametrize("by", CREATING)
async def test_every_api_that_streams_shows_the_same_log(api: RunningGateway, by: str) -> None:
    """In its own frames, under the same cursors, to the same end: what one has shown another need not show again."""
    view, claimed = await started(api, by)
    accepted(await write(api, claimed, DELTA, COMPLETE))
    log = await get_log(api, view.run_id)
    shown = {
        f"{view.paths[0]}/stream": {event["type"] for event in log},
        f"{view.paths[2]}/stream": {event["type"] for event in log},
        f"{view.paths[2]}/stream/chunks": {"message.delta"},
        f"{view.paths[3]}/events": {"run.started", "message.delta", "run.completed"},
    }
    cursors = await read_cursors(api, f"{view.paths[0]}/stream")
    assert [seq_of(cursor) for cursor in cursors] == [event["seq"] for event in log]
    for path, types in shown.items():
        expected = [cursor for cursor, event in zip(cursors, log, strict=True) if event["type"] in types]
        assert await read_cursors(api, path) == expected
        for cursor in cursors:
            rest = [each for each in expected if seq_of(each) > seq_of(cursor)]
            assert await read_cursors(api, path, **{"last-event-id": cursor}) == rest, (path, cursor)


async def read_cursors(api: RunningGateway, path: str, **headers: str) -> list[str]:
    """Return the ids of a stream's frames, to its end, which tells where that is once more."""
    answer = await api.client.get(path, headers=headers)
    assert answer.status_code in (200, 204)
    return list(dict.fromkeys(line[4:] for line in answer.text.split("\n") if line.startswith("id: ")))


def seq_of(cursor: str) -> int:
    """Return the seq in a cursor."""
    return int(cursor.partition("-")[0])
