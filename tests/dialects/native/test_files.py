"""Files: sent, announced, listed, fetched and deleted, each in its tenant."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from typing import Any

import httpx
import pytest

from gateway.domain.access import RUNS_READ, RUNS_WRITE
from tests.support.files import CONTENT, chunks, kept, listed, send, stored
from tests.support.native import accepted, act, get_log, get_types, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.work import act_as_holder, claim_one, queue_run

pytestmark = pytest.mark.anyio

# --- Sending


async def test_a_file_comes_back_as_it_was_sent(api: RunningGateway) -> None:
    """Its record says name, size, type, digest and who sent it; its bytes are the same."""
    record = await stored(api, chunks(CONTENT[:100], CONTENT[100:]), content_type="text/csv; charset=utf-8")
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,26}", record["file_id"])
    assert (record["name"], record["size_bytes"]) == ("data.bin", len(CONTENT))
    assert record["content_type"] == "text/csv; charset=utf-8"
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert record["run_id"] is None
    assert record["created_by"]["kind"] == "key"
    assert record["created_at"] < record["expires_at"]
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content")
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-disposition"].startswith('attachment; filename="data.bin"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def digest_of(content: bytes) -> str:
    """Return a digest as a header has it."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@pytest.mark.parametrize("header", ["repr_digest", "content_digest"])
async def test_a_file_that_arrives_as_another_is_not_kept(api: RunningGateway, header: str) -> None:
    """Neither its record nor its bytes; sent again under the same key as what it is, it is stored."""
    before = kept(api)
    damaged = CONTENT[:-1] + b"x"
    headers = {header: f"sha-512=:AAAA:, {digest_of(CONTENT)}", "idempotency_key": header}
    problem = refused(await send(api, damaged, **headers), 422, "digest_mismatch")
    assert problem["sha256"] == hashlib.sha256(damaged).hexdigest()
    assert kept(api) == before
    record = await stored(api, **headers)
    assert await stored(api, **headers) == record
    assert await stored(api, idempotency_key=header) == record
    refused(await send(api, damaged, **headers), 422, "digest_mismatch")
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content", headers={"range": "bytes=5-9"})
    assert (answer.status_code, answer.headers["repr-digest"]) == (206, digest_of(CONTENT))
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/files"
    refused(await send(api, damaged, path=path, **{header: digest_of(CONTENT)}), 422, "digest_mismatch")
    assert "file.created" not in await get_types(api, run["id"])


async def test_a_digest_that_is_none_is_refused(api: RunningGateway) -> None:
    """Not base64, too short, two that differ, or that of a form."""
    for wrong in ("sha-256=abc", "sha-256=:AAAA:", "sha-256=::", f"{digest_of(b'a')}, {digest_of(b'b')}"):
        refused(await send(api, repr_digest=wrong), 400, "bad_request")
    form = {"files": {"file": ("a", b"a")}, "headers": {"repr-digest": digest_of(b"a")}}
    refused(await api.client.post("/v1/files", **form), 400, "bad_request")  # type: ignore[arg-type]


async def test_an_empty_file_is_a_file(api: RunningGateway) -> None:
    """No bytes at all are stored and fetched."""
    record = await stored(api, b"")
    assert (record["size_bytes"], record["content_type"]) == (0, "application/octet-stream")
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="plain name.txt"', "plain name.txt"),
        ("attachment; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt", "naïve €.txt"),
        ('attachment; filename="naïve.txt"', "naïve.txt"),
    ],
)
async def test_the_name_may_stand_in_content_disposition(api: RunningGateway, disposition: str, name: str) -> None:
    """In each of the ways that it is written there."""
    headers = [(b"content-disposition", disposition.encode())]
    record = accepted(await api.client.post("/v1/files", content=b"x", headers=headers), 201)
    assert record["name"] == name


async def test_a_form_with_one_file_is_taken_apart(api: RunningGateway) -> None:
    """What a browser's form or `curl -F` sends is the part's bytes under the part's name and type."""
    files = {"file": ("bericht ä.pdf", CONTENT, "application/pdf")}
    record = accepted(await api.client.post("/v1/files", files=files), 201)
    assert (record["name"], record["content_type"]) == ("bericht ä.pdf", "application/pdf")
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    renamed = accepted(await api.client.post("/v1/files?name=other.pdf", files=files), 201)
    assert renamed["name"] == "other.pdf"


FORM = b'--B\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nabc'


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (FORM, 400, "bad_request"),
        (b"no form at all", 400, "bad_request"),
        (b"", 400, "bad_request"),
        (FORM + b"\r\n" + FORM + b"\r\n--B--\r\n", 422, "invalid_body"),
        (b'--B\r\nContent-Disposition: form-data; name="f"\r\n\r\nabc\r\n--B--\r\n', 422, "invalid_body"),
    ],
    ids=["cut", "no form", "nothing", "two files", "no file"],
)
async def test_a_form_that_is_not_one_file_is_refused(api: RunningGateway, body: bytes, status: int, code: str) -> None:
    """It says what is wrong, and nothing of it is kept."""
    before = kept(api)
    headers = {"content-type": "multipart/form-data; boundary=B"}
    refused(await api.client.post("/v1/files", content=body, headers=headers), status, code)
    assert kept(api) == before


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "a\\b", "..", ".", "a\x00b", "a\nb", "x" * 256, "a\u202eb", "a\u2028b", "\x7f"],
)
async def test_a_bad_name_is_refused(api: RunningGateway, name: str) -> None:
    """Whoever saves the file under its name must come to no harm."""
    before = kept(api)
    problem = refused(await send(api, b"x", name=name), 422, "invalid_body")
    assert problem["parameter"] == "name"
    assert kept(api) == before


@pytest.mark.parametrize("name", ["x" * 255, "…", "a b", "\";'%", "ملف.txt", "👩‍💻.png"])
async def test_any_other_name_is_kept_and_written_safely(api: RunningGateway, name: str) -> None:
    """Whatever it is, the header has it whole, and is one header."""
    record = await stored(api, b"x", name=name)
    assert record["name"] == name
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content")
    disposition = answer.headers["content-disposition"]
    assert httpx.URL(f"http://x/?n={disposition.partition(chr(39) * 2)[2]}").params["n"] == name
    assert re.fullmatch(r"attachment; filename=\"[^\"\\]*\"; filename\*=UTF-8''[A-Za-z0-9%._~-]+", disposition)


async def test_a_file_without_a_name_is_refused(api: RunningGateway) -> None:
    """It says where a name can be given."""
    problem = refused(await api.client.post("/v1/files", content=b"x"), 422, "invalid_body")
    assert problem["parameter"] == "name"


@pytest.mark.parametrize("content_type", ["text", "text/", "a b/c", 'text/x; a="b', "text/html\t<", "a/" + "b" * 300])
async def test_a_bad_content_type_is_refused(api: RunningGateway, content_type: str) -> None:
    """What is stored is sent again as a header."""
    problem = refused(await send(api, b"x", content_type=content_type), 422, "invalid_body")
    assert problem["parameter"] == "Content-Type"


async def test_a_file_over_the_limit_is_refused_while_it_comes(store: RunningStore) -> None:
    """Announced or not: 413, nothing listed, nothing kept."""
    async with run_gateway(store.url, file_bytes=1_000_000) as api:
        for content in (b"x" * 1_000_001, chunks(b"x" * 600_000, b"x" * 400_001)):
            problem = refused(await send(api, content), 413, "too_large")
            assert problem["limit_bytes"] in (1_000_000, 1_065_536)
        form = {"file": ("x", b"x" * 1_000_001)}
        refused(await api.client.post("/v1/files", files=form), 413, "too_large")
        assert await listed(api) == kept(api) == []
        assert (await stored(api, b"x" * 1_000_000))["size_bytes"] == 1_000_000


async def test_a_compressed_body_is_refused(api: RunningGateway) -> None:
    """It would be stored under the wrong type."""
    refused(await send(api, b"x", content_encoding="gzip"), 400, "bad_request")


async def test_an_upload_that_breaks_off_leaves_nothing(api: RunningGateway) -> None:
    """The client dies within the body: no file is listed, no bytes are kept."""
    before = await listed(api), kept(api)
    _reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    lines = ("POST /v1/files?name=x HTTP/1.1", "Host: x", f"x-api-key: {api.key}", "Content-Length: 9000000", "", "")
    writer.write("\r\n".join(lines).encode() + b"x" * 3_000_000)
    await writer.drain()
    await wait_until(lambda: len(kept(api)) == len(before[1]) + 1)
    writer.transport.abort()
    await wait_until(lambda: kept(api) == before[1])
    assert await listed(api) == before[0]


# --- Repeats


async def test_a_repeated_upload_stores_one_file(api: RunningGateway) -> None:
    """Under its key it is answered as the first time, and its bytes are kept once."""
    first = await stored(api, idempotency_key="one")
    before = kept(api)
    assert await stored(api, idempotency_key="one") == first
    assert kept(api) == before
    assert (await listed(api)).count(first["file_id"]) == 1


async def test_repeats_at_the_same_time_store_one_file(api: RunningGateway) -> None:
    """Whichever is first, all have the same answer, and the others' bytes are gone."""
    before = kept(api)
    answers = await asyncio.gather(*(stored(api, idempotency_key="race") for _ in range(8)))
    assert len({answer["file_id"] for answer in answers}) == 1
    assert len(kept(api)) == len(before) + 1
    answer = await api.client.get(f"/v1/files/{answers[0]['file_id']}/content")
    assert answer.content == CONTENT


async def test_a_key_is_for_one_file(api: RunningGateway) -> None:
    """Other bytes, another name or another type under it are refused, and the first file stays."""
    first = await stored(api, idempotency_key="mine")
    before = kept(api)
    refused(await send(api, CONTENT[1:], idempotency_key="mine"), 422, "idempotency_mismatch")
    refused(await send(api, name="other", idempotency_key="mine"), 422, "idempotency_mismatch")
    refused(await send(api, content_type="a/b", idempotency_key="mine"), 422, "idempotency_mismatch")
    assert kept(api) == before
    assert (await api.client.get(f"/v1/files/{first['file_id']}/content")).content == CONTENT


async def test_a_deleted_file_does_not_come_back(api: RunningGateway) -> None:
    """The repeat of its upload is told that it is gone."""
    record = await stored(api, idempotency_key="gone")
    accepted(await api.client.delete(f"/v1/files/{record['file_id']}"))
    before = kept(api)
    refused(await send(api, idempotency_key="gone"), 404, "not_found")
    assert kept(api) == before


# --- Outputs of runs


async def test_an_output_is_in_the_log_of_its_run(api: RunningGateway) -> None:
    """It starts the run as any first append does, and is listed as the run's."""
    run = await api.create_run()
    path = f"/v1/runs/{run['id']}/files"
    record = await stored(api, path=path, name="report.pdf", content_type="application/pdf")
    assert record["run_id"] == run["id"]
    assert record["expires_at"] is None
    log = await get_log(api, run["id"])
    assert [event["type"] for event in log][-2:] == ["run.started", "file.created"]
    about = {name: record[name] for name in ("file_id", "name", "size_bytes", "content_type")}
    assert (log[-1]["data"], log[-1]["seq"]) == (about, record["seq"])
    (folded,) = accepted(await api.client.get(path))["data"]
    assert folded["file_id"] == record["file_id"]
    assert await listed(api, run_id=run["id"]) == [record["file_id"]]


async def test_an_output_may_belong_to_a_step(api: RunningGateway) -> None:
    """As any event may."""
    run = await api.run_in("running")
    answer = await api.client.post(f"/v1/runs/{run['id']}/files?name=x&step_id=s1", content=b"x")
    accepted(answer, 201)
    assert (await get_log(api, run["id"]))[-1]["step_id"] == "s1"


@pytest.mark.parametrize("status", ["completed", "cancelled", "delayed"])
async def test_an_output_of_a_run_that_takes_none_is_refused(api: RunningGateway, status: str) -> None:
    """As any append to it is; its bytes are not kept, and no file is listed."""
    run = await api.run_in(status)
    before = kept(api)
    refused(await send(api, path=f"/v1/runs/{run['id']}/files"), 409, "invalid_state")
    assert kept(api) == before
    assert await listed(api, run_id=run["id"]) == []


async def test_an_output_of_an_attempt_that_is_over_is_refused(api: RunningGateway) -> None:
    """The writer of an older attempt is fenced, and what it sent is not kept."""
    run = await api.run_in("running")
    accepted(await act(api, run["id"], "restart"))
    accepted(await api.append(run["id"], LOG, attempt=2))
    before = kept(api)
    answer = await api.client.post(f"/v1/runs/{run['id']}/files?name=x&attempt=1", content=b"x")
    refused(answer, 409, "fenced")
    assert kept(api) == before
    assert await listed(api, run_id=run["id"]) == []


async def test_an_output_of_a_claimed_run_is_its_holders(api: RunningGateway) -> None:
    """Without its lease it is fenced and not kept; what came with it may be repeated under the next lease."""
    run_id = await queue_run(api, "files")
    before, path, first = kept(api), f"/v1/runs/{run_id}/files", await claim_one(api, "files")
    for lease in ("", "another"):
        refused(await send(api, path=path, lease=lease), 409, "fenced")
    assert kept(api) == before
    assert await listed(api, run_id=run_id) == []
    sent = await stored(api, path=path, lease=first["lease"]["token"], idempotency_key="k")
    accepted(await act_as_holder(api, first, "release"))
    second = await claim_one(api, "files")
    assert await stored(api, path=path, lease=second["lease"]["token"], idempotency_key="k") == sent
    assert (await get_types(api, run_id)).count("file.created") == 1


async def test_a_key_that_may_only_work_sends_outputs_of_what_it_claimed(api: RunningGateway) -> None:
    """As it writes events: under its lease, and no others."""
    run_id = await queue_run(api, "claimers")
    async with open_client(api, scopes=["work"]) as client:
        (claimed,) = accepted(await client.post("/v1/claims", json={"queues": ["claimers"]}))["data"]
        path, params = f"/v1/runs/{run_id}/files", {"name": "report"}
        lease = {"lease": claimed["lease"]["token"]}
        record = accepted(await client.post(path, params=params, content=b"report", headers=lease), 201)
        refused(await client.post(path, params=params, content=b"report"), 403, "forbidden")
        refused(await client.post(path, params=params, content=b"report", headers={"lease": "x"}), 409, "fenced")
        refused(await client.post("/v1/files", params=params, content=b"report", headers=lease), 403, "forbidden")
    assert await listed(api, run_id=run_id) == [record["file_id"]]


async def test_an_output_of_no_run_is_refused(api: RunningGateway) -> None:
    """Before its bytes are stored."""
    refused(await send(api, path="/v1/runs/01J00000000000000000000000/files"), 404, "not_found")


async def test_a_repeated_output_is_appended_once(api: RunningGateway) -> None:
    """Under its key it is answered as the first time, even when the run has ended since."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/files"
    first = await stored(api, path=path, idempotency_key="k")
    accepted(await api.append(run["id"], COMPLETE))
    before = kept(api)
    assert await stored(api, path=path, idempotency_key="k") == first
    assert (await get_types(api, run["id"])).count("file.created") == 1
    assert kept(api) == before
    refused(await send(api, b"other", path=path, idempotency_key="k"), 422, "idempotency_mismatch")
    refused(await send(api, path=path), 409, "invalid_state")


async def test_repeated_outputs_at_the_same_time_are_appended_once(api: RunningGateway) -> None:
    """One file, one event, one copy of the bytes."""
    run = await api.create_run()
    before = kept(api)
    path = f"/v1/runs/{run['id']}/files"
    answers = await asyncio.gather(*(stored(api, path=path, idempotency_key="k") for _ in range(8)))
    assert len({(answer["file_id"], answer["seq"]) for answer in answers}) == 1
    assert (await get_types(api, run["id"])).count("file.created") == 1
    assert len(kept(api)) == len(before) + 1
    assert (await api.client.get(f"/v1/files/{answers[0]['file_id']}/content")).content == CONTENT


async def test_a_key_of_an_append_is_not_that_of_an_output(api: RunningGateway) -> None:
    """The same key given to both is two requests."""
    run = await api.create_run()
    headers = {"idempotency-key": "both"}
    body = {"type": "log", "data": {"level": "info", "message": "x"}}
    accepted(await api.client.post(f"/v1/runs/{run['id']}/events", json=body, headers=headers))
    await stored(api, path=f"/v1/runs/{run['id']}/files", idempotency_key="both")
    assert (await get_types(api, run["id"]))[-2:] == ["log", "file.created"]


async def test_outputs_go_with_their_run(api: RunningGateway) -> None:
    """Once it is purged, its files are neither found nor kept; uploaded ones stay."""
    run = await api.run_in("running")
    output = await stored(api, path=f"/v1/runs/{run['id']}/files")
    uploaded = await stored(api)
    accepted(await api.append(run["id"], COMPLETE))
    accepted(await act(api, run["id"], "purge", keep_record=True))
    accepted(await api.client.get(f"/v1/files/{output['file_id']}"))
    accepted(await act(api, run["id"], "purge"))
    refused(await api.client.get(f"/v1/files/{output['file_id']}"), 404, "not_found")
    accepted(await api.client.get(f"/v1/files/{uploaded['file_id']}"))
    names = kept(api)
    assert not any(name.startswith(output["file_id"]) for name in names)
    assert any(name.startswith(uploaded["file_id"]) for name in names)


# --- Inputs of runs


async def test_a_run_names_its_input_files(api: RunningGateway) -> None:
    """They are in its record and its log, and its copies have them too."""
    ids = [(await stored(api, b"x"))["file_id"] for _ in range(2)]
    run = await api.create_run(file_ids=[ids[0], ids[1].lower()])
    assert run["file_ids"] == ids
    assert (await get_log(api, run["id"]))[0]["data"]["file_ids"] == ids
    accepted(await act(api, run["id"], "cancel"))
    for action in ("retry", "replay"):
        assert accepted(await act(api, run["id"], action), 201)["file_ids"] == ids
    assert (await api.create_run())["file_ids"] == []


async def test_an_input_file_that_is_not_there_is_named(api: RunningGateway) -> None:
    """No run is created."""
    there = (await stored(api, b"x"))["file_id"]
    missing = "01J00000000000000000000000"
    body = {"agent_id": "x", "mode": "direct", "file_ids": [there, missing, "no-such"]}
    problem = refused(await api.client.post("/v1/runs", json=body), 422, "invalid_body")
    assert (problem["path"], problem["file_ids"]) == ("$.file_ids[1]", [missing, "NO-SUCH"])


@pytest.mark.parametrize("file_ids", [["x" * 27], [""], ["a/b"], ["x"] * 65, "x"])
async def test_input_files_out_of_bounds_are_refused(api: RunningGateway, file_ids: Any) -> None:
    """At most 64 ids of 1 to 26 letters, digits, dashes and underscores."""
    body = {"agent_id": "x", "mode": "direct", "file_ids": file_ids}
    refused(await api.client.post("/v1/runs", json=body), 422, "invalid_body")


# --- Lists


async def test_a_list_of_files_is_paged_newest_first(store: RunningStore) -> None:
    """Every file once, whatever the size of a page."""
    async with run_gateway(store.url) as api:
        made = [(await stored(api, b"%d" % n))["file_id"] for n in range(7)]
        for limit in (1, 2, 3, 7, 50):
            assert sorted(await listed(api, limit=limit)) == sorted(made)
        page = accepted(await api.client.get("/v1/files?limit=7"))
        assert (len(page["data"]), page["has_more"], page["next_cursor"]) == (7, False, None)
        ids = [file["file_id"] for file in page["data"]]
        assert ids == sorted(ids, reverse=True)
        refused(await api.client.get("/v1/files?cursor=x"), 400, "bad_request")
        refused(await api.client.get("/v1/files?sort=name"), 400, "bad_request")


# --- Deleting


async def test_a_deleted_file_is_gone(api: RunningGateway) -> None:
    """Its record, its bytes, its place in lists, and what its signed URL opened."""
    record = await stored(api)
    url = accepted(await api.client.get(f"/v1/files/{record['file_id']}"))["url"]
    body = accepted(await api.client.delete(f"/v1/files/{record['file_id']}"))
    assert body == {"file_id": record["file_id"], "deleted": True}
    for path in ("", "/content"):
        refused(await api.client.get(f"/v1/files/{record['file_id']}{path}"), 404, "not_found")
    refused(await api.client.delete(f"/v1/files/{record['file_id']}"), 404, "not_found")
    refused(await api.client.get(url), 404, "not_found")
    assert record["file_id"] not in await listed(api)
    assert not any(name.startswith(record["file_id"]) for name in kept(api))


# --- Reach


async def test_a_file_of_another_tenant_does_not_exist(api: RunningGateway) -> None:
    """Read, fetched, deleted or used as an input: exactly as if it were not there."""
    record = await stored(api)
    async with open_client(api, tenant=f"strangers-to-{api.tenant}") as stranger:
        for path in ("", "/content"):
            mine = refused(await stranger.get(f"/v1/files/{record['file_id']}{path}"), 404, "not_found")
            none = refused(await stranger.get(f"/v1/files/01J00000000000000000000000{path}"), 404, "not_found")
            assert mine.keys() == none.keys()
        refused(await stranger.delete(f"/v1/files/{record['file_id']}"), 404, "not_found")
        body = {"agent_id": "x", "mode": "direct", "file_ids": [record["file_id"]]}
        refused(await stranger.post("/v1/runs", json=body), 422, "invalid_body")
        assert accepted(await stranger.get("/v1/files"))["data"] == []
    accepted(await api.client.get(f"/v1/files/{record['file_id']}"))


async def test_a_key_for_some_agents_has_their_files(api: RunningGateway) -> None:
    """Their runs' outputs, what it sent itself, and by name what is input; nothing of other agents' outputs."""
    mine, others = await api.create_run(agent_id="mine"), await api.create_run(agent_id="others")
    outputs = [(await stored(api, b"x", path=f"/v1/runs/{run['id']}/files"))["file_id"] for run in (mine, others)]
    uploaded = (await stored(api, b"x"))["file_id"]
    async with open_client(api, agents=["mine"]) as bound:
        own = accepted(await bound.post("/v1/files?name=x", content=b"x"), 201)["file_id"]
        assert (await bound.get(f"/v1/files/{outputs[0]}/content")).content == b"x"
        refused(await bound.get(f"/v1/files/{outputs[1]}"), 404, "not_found")
        refused(await bound.post(f"/v1/runs/{others['id']}/files?name=x", content=b"x"), 404, "not_found")
        assert (await bound.get(f"/v1/files/{uploaded}/content")).content == b"x"
        refused(await bound.delete(f"/v1/files/{uploaded}"), 404, "not_found")
        found = {file["file_id"] for file in accepted(await bound.get("/v1/files"))["data"]}
        assert found == {own, outputs[0]}
        accepted(await bound.delete(f"/v1/files/{own}"))


async def test_a_ticket_opens_the_outputs_of_its_runs(api: RunningGateway) -> None:
    """And no other file."""
    run, other = await api.create_run(), await api.create_run()
    outputs = [(await stored(api, b"x", path=f"/v1/runs/{r['id']}/files"))["file_id"] for r in (run, other)]
    uploaded = (await stored(api, b"x"))["file_id"]
    ticket = accepted(await api.client.post("/v1/tickets", json={"runs": [run["id"]]}), 201)["ticket"]
    async with httpx.AsyncClient(base_url=api.url, params={"ticket": ticket}) as browser:
        assert (await browser.get(f"/v1/files/{outputs[0]}/content")).content == b"x"
        assert accepted(await browser.get(f"/v1/files/{outputs[0]}"))["file_id"] == outputs[0]
        for file_id in (outputs[1], uploaded):
            refused(await browser.get(f"/v1/files/{file_id}/content"), 404, "not_found")


async def test_scopes_are_asked_for(api: RunningGateway) -> None:
    """To read is not to write."""
    record = await stored(api, b"x")
    async with open_client(api, scopes=[RUNS_READ]) as reader:
        refused(await reader.post("/v1/files?name=x", content=b"x"), 403, "forbidden")
        refused(await reader.delete(f"/v1/files/{record['file_id']}"), 403, "forbidden")
    async with open_client(api, scopes=[RUNS_WRITE]) as writer:
        refused(await writer.get(f"/v1/files/{record['file_id']}"), 403, "forbidden")
    async with httpx.AsyncClient(base_url=api.url) as nobody:
        refused(await nobody.get(f"/v1/files/{record['file_id']}/content"), 401, "unauthenticated")
        refused(await nobody.post("/v1/files?name=x", content=b"x"), 401, "unauthenticated")
