"""Names that callers choose: each can be used wherever it is asked for."""

from __future__ import annotations

import pytest

from tests.support.native import accepted, refused
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

RUN = {"agent_id": "tester", "mode": "direct"}


@pytest.mark.parametrize("member", ["agent_id", "thread_id", "batch_id"])
@pytest.mark.parametrize("name", ["t\n", "\nt", "t\nu", "", "-t", "t t", "é"])
async def test_a_name_is_one_word(api: RunningGateway, member: str, name: str) -> None:
    """A line break is no part of it, not even at its end."""
    refused(await api.client.post("/v1/runs", json={**RUN, member: name}), 422, "invalid_body")


async def test_a_tag_has_no_line_break(api: RunningGateway) -> None:
    """Nor any other control character in its key."""
    refused(await api.client.post("/v1/runs", json={**RUN, "tags": {"k\n": "v"}}), 422, "invalid_body")


@pytest.mark.parametrize("member", ["agent_id", "thread_id"])
async def test_a_name_in_a_path_has_no_slash(api: RunningGateway, member: str) -> None:
    """It would be two segments of the path that it stands in."""
    refused(await api.client.post("/v1/runs", json={**RUN, member: "a/b"}), 422, "invalid_body")


async def test_any_thread_can_be_asked_for_by_its_path(api: RunningGateway) -> None:
    """Every character that a thread's id may have is one of a path's segment."""
    thread_id = "Az09._:@+-"
    run = accepted(await api.client.post("/v1/runs", json={**RUN, "thread_id": thread_id}), 201)
    (listed,) = accepted(await api.client.get(f"/v1/threads/{thread_id}/runs"))["data"]
    assert listed["id"] == run["id"]
