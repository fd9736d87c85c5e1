"""Output files: named by the run, opened by signed addresses that last a while and are fresh each time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.dialects.agents.speaking import AGENT, fetch, path_of, told
from tests.support.native import accepted, act, open_client
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7 " + bytes(range(256)) * 8


async def put_file(api: RunningGateway, run_id: str, name: str = "report.pdf", content: bytes = PDF) -> dict[str, Any]:
    """Have a run make a file and return its record."""
    headers = {"content-type": "application/pdf"}
    answer = await api.client.post(f"/v1/runs/{run_id}/files", params={"name": name}, content=content, headers=headers)
    return accepted(answer, 201)


def unix_s(moment: str) -> float:
    """Return a time as Unix seconds."""
    return datetime.fromisoformat(moment).timestamp()


async def test_each_output_file_has_an_address_that_opens_it_for_fifteen_minutes(api: RunningGateway) -> None:
    """Without a key; names and sizes are those of the files, in the order they were made."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], LOG)
    await put_file(api, run["id"])
    await put_file(api, run["id"], "empty.txt", b"")
    await api.append(run["id"], COMPLETE)
    files = (await fetch(api, run["id"]))["output_files"]
    assert [(f["name"], f["size_bytes"]) for f in files] == [("report.pdf", len(PDF)), ("empty.txt", 0)]
    async with httpx.AsyncClient() as nobody:
        for file, content in zip(files, (PDF, b""), strict=True):
            left_s = unix_s(file["url_expires_at"]) - api.gateway.clock.now_ms() / 1000
            assert 890 < left_s <= 900
            assert (await nobody.get(file["url"])).content == content


async def test_a_changed_address_opens_nothing(api: RunningGateway) -> None:
    """The signature covers which file it is and until when."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], LOG)
    await put_file(api, run["id"])
    url = httpx.URL((await fetch(api, run["id"]))["output_files"][0]["url"])
    later = str(int(url.params["expires"]) + 60)
    async with httpx.AsyncClient() as nobody:
        assert (await nobody.get(url.copy_set_param("expires", later))).status_code == 403
        assert (await nobody.get(url)).status_code == 200


async def test_an_address_expires_and_a_new_get_gives_a_fresh_one(store: RunningStore) -> None:
    """The old one then opens nothing, the new one does."""
    async with run_gateway(store.url, file_url_s=1) as api:
        run = await api.create_run(agent_id=AGENT)
        await api.append(run["id"], LOG)
        await put_file(api, run["id"])
        first = (await fetch(api, run["id"]))["output_files"][0]
        async with httpx.AsyncClient() as nobody:

            async def has_expired() -> bool:
                return (await nobody.get(first["url"])).status_code == 403

            await wait_until(has_expired)
            fresh = (await fetch(api, run["id"]))["output_files"][0]
            assert fresh["url"] != first["url"]
            assert unix_s(fresh["url_expires_at"]) > unix_s(first["url_expires_at"])
            assert (await nobody.get(fresh["url"])).content == PDF


async def test_a_file_that_is_no_more_is_named_without_an_address(api: RunningGateway) -> None:
    """The log still names it; so is one that was never stored here, and one that belongs to somebody else."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], LOG)
    deleted = await put_file(api, run["id"])
    accepted(await api.client.delete(f"/v1/files/{deleted['file_id']}"))
    async with open_client(api, tenant="strangers") as stranger:
        foreign = accepted(await stranger.post("/v1/files", params={"name": "theirs"}, content=b"secret"), 201)
    for file_id in ("elsewhere", foreign["file_id"]):
        about = {"file_id": file_id, "name": "x", "size_bytes": 3, "content_type": "text/plain"}
        accepted(await api.append(run["id"], ("file.created", about)))
    files = (await fetch(api, run["id"]))["output_files"]
    assert [(f["url"], f["url_expires_at"]) for f in files] == [(None, None)] * 3
    assert [f["name"] for f in files] == ["report.pdf", "x", "x"]


async def test_files_outlive_the_log(api: RunningGateway) -> None:
    """They are looked up where the log that named them was removed."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], LOG)
    for name in ("a.txt", "b.txt"):
        await put_file(api, run["id"], name, name.encode())
    await api.append(run["id"], COMPLETE)
    accepted(await act(api, run["id"], "purge", keep_record=True))
    files = (await fetch(api, run["id"]))["output_files"]
    assert [f["name"] for f in files] == ["a.txt", "b.txt"]
    async with httpx.AsyncClient() as nobody:
        assert (await nobody.get(files[1]["url"])).content == b"b.txt"


async def test_actions_answer_with_files_too(api: RunningGateway) -> None:
    """They answer with the full record; what a retry will make is not there yet."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], LOG)
    await put_file(api, run["id"])
    record = told(await api.client.post(path_of(run["id"], "pause")))
    assert [f["name"] for f in record["output_files"]] == ["report.pdf"]
    await api.append(run["id"], ("run.failed", {"error": {"code": "x", "message": "y"}}))
    assert told(await api.client.post(path_of(run["id"], "retry")), 201)["output_files"] == []
