"""A run is started by what the page lists, and refused by the member that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from ulid import ULID

from tests.dialects.processes.speaking import AGENT, BODY, PROCESS, refused, refused_at, start, told, walk
from tests.support.native import accepted, get_run, open_client
from tests.support.running import RunningGateway
from tests.support.work import claim_one, put_agent

pytestmark = pytest.mark.anyio

WRONG: list[tuple[dict[str, Any], list[str | int]]] = [
    ({"agent_id": ""}, ["agent_id"]),
    ({"agent_id": "x" * 27}, ["agent_id"]),
    ({"agent_id": "a.b"}, ["agent_id"]),
    ({"agent_id": "ok\n"}, ["agent_id"]),
    ({"process_id": ""}, ["process_id"]),
    ({"process_id": "x" * 27}, ["process_id"]),
    ({"process_id": "a b"}, ["process_id"]),
    ({"process_id": 7}, ["process_id"]),
    ({"name": ""}, ["name"]),
    ({"name": "x" * 101}, ["name"]),
    ({"name": None}, ["name"]),
    ({"stage": "draft"}, ["stage"]),
    ({"stage": None}, ["stage"]),
    ({"file_ids": "x"}, ["file_ids"]),
    ({"file_ids": ["ok", ""]}, ["file_ids", 1]),
    ({"file_ids": ["x" * 27]}, ["file_ids", 0]),
    ({"file_ids": ["b4fznghynbdemslfd5k044fgd"]}, ["file_ids", 0]),
    ({"file_ids": ["x"] * 65}, ["file_ids"]),
    ({"inputs": {"order_id": 1}}, ["inputs"]),
    ({"inputs": [{"name": "a"}]}, ["inputs", 0, "value"]),
    ({"inputs": [{"value": 1}]}, ["inputs", 0, "name"]),
    ({"inputs": [{"name": "", "value": 1}]}, ["inputs", 0, "name"]),
    ({"inputs": [{"name": "a", "value": 1}, {"name": "a", "value": 2}]}, ["inputs", 1, "name"]),
]


async def test_the_example_of_the_page_starts_a_run(api: RunningGateway) -> None:
    """Queued for a worker, which gets the inputs by their names."""
    queue = f"q{ULID()}"
    await put_agent(api, AGENT, queue=queue)
    inputs = [{"name": "order_id", "value": "b4fznghynbdemslfd5k044fgd"}, {"name": "n", "value": None}]
    run = await start(api, inputs=inputs, file_ids=None)
    assert {name: run[name] for name in BODY} == BODY
    assert (run["status"], run["file_ids"], run["outputs"]) == ("Created", None, None)
    assert len(run["id"]) <= 26
    assert run["id"].isalnum()
    assert told(await api.client.get(f"/runs/{run['id']}")) == run
    claimed = await claim_one(api, queue)
    assert claimed["run"]["id"] == run["id"]
    assert claimed["run"]["input"] == {"order_id": "b4fznghynbdemslfd5k044fgd", "n": None}
    assert claimed["run"]["title"] == "Process invoice 42"


async def test_a_run_may_have_no_inputs(api: RunningGateway) -> None:
    """Left out and null are none at all, an empty list is no input by name; members that the page lacks are ignored."""
    for changes, native in (({}, None), ({"inputs": None}, None), ({"inputs": []}, {}), ({"priority": "?"}, None)):
        run = await start(api, **changes)
        assert (await get_run(api, run["id"]))["input"] == native


async def test_files_given_as_input_must_be_there(api: RunningGateway) -> None:
    """In the caller's own tenant; a run shows those it was given, its worker gets them."""
    upload = await api.client.post("/v1/files", params={"name": "invoice.pdf"}, content=b"%PDF")
    file_id = accepted(upload, 201)["file_id"]
    run = await start(api, file_ids=[file_id, file_id.lower()])
    assert run["file_ids"] == [file_id, file_id]
    assert told(await api.client.get(f"/runs/{run['id']}"))["file_ids"] == [file_id, file_id]
    assert (await get_run(api, run["id"]))["file_ids"] == [file_id, file_id]
    assert (await start(api, file_ids=[]))["file_ids"] is None
    async with open_client(api, tenant="strangers") as stranger:
        answer = await stranger.post("/runs", json=BODY | {"file_ids": [file_id]})
        refused_at(answer, "body", "file_ids", 0)


@pytest.mark.parametrize("most", [True, False])
async def test_members_reach_to_their_bounds(api: RunningGateway, most: bool) -> None:
    """The shortest and the longest that the page allows."""
    size = 26 if most else 1
    edge = {"agent_id": "-" * (size - 1) + "a", "process_id": "_" * size, "name": "é" * (100 if most else 1)}
    if not most:
        edge["agent_id"] = "a"
    run = await start(api, stage="Published" if most else "Draft", **edge)
    assert {name: run[name] for name in edge} == edge


@pytest.mark.parametrize(("changes", "loc"), WRONG)
async def test_a_wrong_member_is_refused_by_its_place(
    api: RunningGateway, changes: dict[str, Any], loc: list[str | int]
) -> None:
    """Nothing is started."""
    agent = f"agent{len(str(changes))}"
    before = await walk(api, agent_id=agent)
    answer = await api.client.post("/runs", json=BODY | {"agent_id": agent} | changes)
    refused_at(answer, "body", *loc)
    assert await walk(api, agent_id=agent) == before


@pytest.mark.parametrize("name", BODY)
async def test_a_missing_member_is_refused_as_missing(api: RunningGateway, name: str) -> None:
    """Each that the page requires."""
    body = {key: value for key, value in BODY.items() if key != name}
    assert refused_at(await api.client.post("/runs", json=body), "body", name) == "missing"


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"\xff", 400), (b"[" * 200, 400), (b"[]", 422), (b"", 422), (b"7", 422)]
)
async def test_a_body_that_is_no_object_is_refused(api: RunningGateway, content: bytes, status: int) -> None:
    """400 where it cannot be read at all."""
    refused(await api.client.post("/runs", content=content), status)


async def test_a_body_has_a_size(api: RunningGateway) -> None:
    """1 MiB of inputs, and no more."""
    inputs = [{"name": "big", "value": "x" * 1024 * 1024}]
    refused(await api.client.post("/runs", json=BODY | {"inputs": inputs}), 413)


async def test_a_repeat_under_an_idempotency_key_starts_one_run(api: RunningGateway) -> None:
    """Another body under it is refused."""
    headers = {"idempotency-key": "invoice-42"}
    made = {told(await api.client.post("/runs", json=BODY, headers=headers), 201)["id"] for _ in range(3)}
    assert len(made) == 1
    (run_id,) = made
    accepted(await api.client.post(f"/v1/runs/{run_id}/cancel"))
    again = told(await api.client.post("/runs", json=BODY, headers=headers), 201)
    assert (again["id"], again["status"]) == (run_id, "Cancelled")
    refused(await api.client.post("/runs", json=BODY | {"name": "other"}, headers=headers), 422)


async def test_the_key_stands_in_either_header(api: RunningGateway) -> None:
    """`x-api-key` as the page has it, or a bearer token; none at all is 401, one without the scope 403."""
    api.client.headers.pop("authorization")
    try:
        refused(await api.client.post("/runs", json=BODY), 401)
        refused(await api.client.get("/runs"), 401)
        refused(await api.client.post("/runs", json=BODY, headers={"x-api-key": "wrong"}), 401)
        run = told(await api.client.post("/runs", json=BODY, headers={"x-api-key": api.key}), 201)
        bearer = {"authorization": f"Bearer {api.key}"}
        assert told(await api.client.get(f"/runs/{run['id']}", headers=bearer)) == run
    finally:
        api.client.headers["authorization"] = f"Bearer {api.key}"
    async with open_client(api, scopes=["runs:read"]) as client:
        refused(await client.post("/runs", json=BODY), 403)
        assert told(await client.get(f"/runs/{run['id']}")) == run
    async with open_client(api, agents=["another"]) as client:
        refused(await client.post("/runs", json=BODY), 403)


async def test_a_copy_stays_in_its_process(api: RunningGateway) -> None:
    """Whoever retries it, through whichever API."""
    run = await start(api)
    accepted(await api.client.post(f"/v1/runs/{run['id']}/cancel"))
    copy = accepted(await api.client.post(f"/v1/runs/{run['id']}/retry"), 201)
    shown = told(await api.client.get(f"/runs/{copy['id']}"))
    assert {name: shown[name] for name in BODY} == BODY
    assert (await walk(api, process_id=PROCESS))[0] == copy["id"]
