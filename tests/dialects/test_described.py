"""Every status that a dialect names for an operation occurs, and its answer is as the description says."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from ulid import ULID

from tests.support.described import Described
from tests.support.native import accepted, ask, open_client
from tests.support.running import COMPLETE, LOG, RunningGateway

pytestmark = pytest.mark.anyio

KEY = "idempotency-key"
BODIES: dict[str, Any] = {
    "/v1/threads/{thread_id}/runs": {"persona_id": "writer@1.2.0", "route_id": "r"},
    "/v1/runs/{run_id}/input": {"content": "x"},
    "/v1/runs/{id}/resume": {"interrupt_id": "q1", "input": {"go": True}},
    "/runs": {"agent_id": "a", "process_id": "p", "name": "n", "stage": "Draft", "inputs": [{"name": "i", "value": 1}]},
}
QUERIES: dict[str, dict[str, Any]] = {
    "/runs": {"agent_id": "a", "process_id": "p"},
    "/v1/runs/{id}": {"include": "steps"},
    "/v1/runs/{id}/resume": {"include": "steps"},
}
BIG = b'{"name":"%s"}' % (b"x" * 2 * 1024 * 1024)
"""Larger than any body may be."""


async def waiting_run(api: RunningGateway) -> str:
    """Return a run that has taken a step and waits for an answer."""
    run = await api.create_run(agent_id="a", title="t")
    step = ("step.started", {"step_id": "s", "name": "S"})
    accepted(await api.append(run["id"], LOG, step, ("message.delta", {"content": "a"})))
    await ask(api, run["id"], request_id="q1", schema={"type": ["object", "string"]})
    return str(run["id"])


async def ended_run(api: RunningGateway) -> str:
    """Return a run that has completed after it was answered."""
    run_id = await waiting_run(api)
    accepted(await api.client.post(f"/v1/runs/{run_id}/input", json={"content": "x"}))
    accepted(await api.append(run_id, ("output.set", {"key": "k", "value": 1}), COMPLETE))
    return run_id


async def remove(api: RunningGateway, run_id: str, *, keep_record: bool) -> None:
    """Remove an ended run's log, or all of it."""
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge", json={"keep_record": keep_record}))


class Trial:
    """Asks an operation so that it answers with a certain status."""

    def __init__(self, api: RunningGateway, place: str, method: str, path: str) -> None:
        self._api = api
        self._method = method
        self._path = path
        self._url = place + path
        self._is_of_a_run = "{run_id}" in path or "{id}" in path

    async def ask(self, status: int) -> httpx.Response:
        """Return an answer that is to have this status."""
        api = self._api
        match status:
            case 401:
                async with httpx.AsyncClient(base_url=api.url) as nobody:
                    return await self._send(await waiting_run(api), client=nobody)
            case 403:
                async with open_client(api, scopes=["work"]) as worker:
                    return await self._send(await waiting_run(api), client=worker)
            case 400:
                return await self._send(await waiting_run(api), headers={KEY: "x" * 257})
            case 413:
                return await self._send(await waiting_run(api), content=BIG)
            case 422 if self._method == "get":
                return await self._send("", params={})
            case 422:
                return await self._send(await waiting_run(api), content=b"[]")
            case 404 if not self._is_of_a_run:
                return await self._repeat_what_was_purged()
            case 404:
                return await self._send(str(ULID()))
            case 409:
                return await self._send(await ended_run(api))
            case 410:
                return await self._ask_without_log()
        run_id = await ended_run(api) if self._path.endswith("/events") else await waiting_run(api)
        head_seq = accepted(await api.client.get(f"/v1/runs/{run_id}"))["head_seq"]
        about: dict[str, Any] = {"params": {"after_seq": head_seq}} if status == 204 else {}
        return await self._send(run_id, **about)

    async def _send(self, run_id: str, *, client: httpx.AsyncClient | None = None, **request: Any) -> httpx.Response:
        request = {"params": QUERIES.get(self._path, {}), **request}
        if self._method == "post" and "content" not in request:
            request["json"] = BODIES.get(self._path)
        url = self._url.format(run_id=run_id, id=run_id, thread_id=f"t{ULID()}"[:8])
        if self._path == "/runs" and self._method == "post":
            request["params"] = {}
        return await (client or self._api.client).request(self._method, url, **request)

    async def _repeat_what_was_purged(self) -> httpx.Response:
        """Create a run again under the key of one that was removed."""
        headers = {KEY: str(ULID())}
        body = accepted(await self._send("", headers=headers), 201)
        run_id = body.get("run_id") or body["id"]
        accepted(await self._api.client.post(f"/v1/runs/{run_id}/cancel"))
        await remove(self._api, run_id, keep_record=False)
        return await self._send("", headers=headers)

    async def _ask_without_log(self) -> httpx.Response:
        """Ask for what only the log of the run had, or repeat the answer that it was given."""
        run_id = await waiting_run(self._api)
        headers = {KEY: str(ULID())}
        if self._method == "post":
            accepted(await self._send(run_id, headers=headers))
        else:
            accepted(await self._api.client.post(f"/v1/runs/{run_id}/input", json={"content": "x"}))
        accepted(await self._api.append(run_id, COMPLETE))
        await remove(self._api, run_id, keep_record=True)
        return await self._send(run_id, headers=headers)


@pytest.mark.parametrize("name", ["threads", "interrupts", "processes"])
async def test_every_status_that_is_named_occurs(api: RunningGateway, name: str) -> None:
    """Each with a body of the very members that the description has."""
    place = f"/compat/{name}"
    document = accepted(await api.client.get(f"{place}/openapi.json"))
    described = Described(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status in map(int, operation["responses"].keys() - {"default"}):
                answer = await Trial(api, place, method, path).ask(status)
                assert answer.status_code == status, (method, path, answer.text)
                if answer.headers.get("content-type") != "text/event-stream" and answer.content:
                    described.check_answer(method, path, answer)


@pytest.mark.parametrize(
    "media", ["application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize("path", BODIES)
async def test_a_body_is_json_whatever_it_is_called(api: RunningGateway, path: str, media: str) -> None:
    """What clients of these systems send, curl without a header included; other bytes are refused all the same."""
    name = "interrupts" if "{id}" in path else "processes" if path == "/runs" else "threads"
    run_id = await waiting_run(api)
    url = f"/compat/{name}{path}".format(run_id=run_id, id=run_id, thread_id="t")
    headers = {"content-type": media}
    refused = await api.client.post(url, content=b"content=x&interrupt_id=q1", headers=headers)
    assert refused.status_code == 400
    sent = msgspec.json.encode(BODIES[path])
    assert (await api.client.post(url, content=sent, headers=headers)).is_success


@pytest.mark.parametrize("name", ["threads", "interrupts", "processes"])
async def test_examples_are_of_the_shape_that_they_are_examples_of(api: RunningGateway, name: str) -> None:
    """Whoever copies one from the reference page sends what is taken."""
    document = accepted(await api.client.get(f"/compat/{name}/openapi.json"))
    described = Described(document)
    found = list(find_examples(document))
    for schema, example in found:
        described.check(example, schema)
    assert len(found) >= {"threads": 1, "interrupts": 2, "processes": 10}[name]


def find_examples(part: Any) -> Any:
    """Yield each schema that has examples, with each of them."""
    if isinstance(part, dict):
        for example in part.get("examples", ()):
            yield part, example
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from find_examples(inner)
