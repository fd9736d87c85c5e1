"""Fetching files: by URLs that open them without a key for a while, in part, and not again."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.requests import Request

from gateway.domain.access import RUNS_READ
from tests.support.files import CONTENT, stored
from tests.support.native import accepted, refused
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

# --- Signed URLs


async def test_a_signed_url_opens_its_file_without_a_key(api: RunningGateway) -> None:
    """For 15 minutes; whole, in part, and its head."""
    record = await stored(api)
    got = accepted(await api.client.get(f"/v1/files/{record['file_id']}"))
    assert got["url"].startswith(f"{api.url}/files/{record['file_id']}?")
    expires_s = int(parse_qs(urlsplit(got["url"]).query)["expires"][0])
    assert 890_000 < expires_s * 1000 - api.gateway.clock.now_ms() <= 900_000
    assert got["url_expires_at"].endswith("Z")
    async with httpx.AsyncClient() as nobody:
        assert (await nobody.get(got["url"])).content == CONTENT
        part = await nobody.get(got["url"], headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, CONTENT[5:10])
        head = await nobody.head(got["url"])
        assert (head.headers["content-length"], head.content) == (str(len(CONTENT)), b"")


async def test_a_changed_url_opens_nothing(api: RunningGateway) -> None:
    """Another file, another time, another tenant, another signature, anything missing or added."""
    record, other = await stored(api), await stored(api)
    url = httpx.URL(accepted(await api.client.get(f"/v1/files/{record['file_id']}"))["url"])
    expires, signature = url.params["expires"], url.params["signature"]
    owner, _, made = signature.rpartition(".")
    changed = [
        url.copy_with(path=f"/files/{other['file_id']}"),
        url.copy_set_param("expires", str(int(expires) + 1)),
        url.copy_set_param("expires", ""),
        url.copy_set_param("expires", "-1"),
        url.copy_set_param("expires", "9" * 400),
        url.copy_set_param("signature", f"{owner}.{made[:-2]}AA"),
        url.copy_set_param("signature", f"AAAA.{made}"),
        url.copy_set_param("signature", f"é.{made}"),
        url.copy_set_param("signature", ""),
        url.copy_remove_param("signature"),
        url.copy_remove_param("expires"),
        url.copy_add_param("expires", expires),
        url.copy_add_param("name", "x"),
    ]
    async with httpx.AsyncClient() as nobody:
        for each in changed:
            refused(await nobody.get(each), 403, "signature_invalid")
        assert (await nobody.get(url)).status_code == 200


async def test_a_url_expires(store: RunningStore) -> None:
    """It then says so, and a fresh one opens the file again."""
    async with run_gateway(store.url, file_url_s=1) as api:
        record = await stored(api, b"x")
        url = accepted(await api.client.get(f"/v1/files/{record['file_id']}"))["url"]
        async with httpx.AsyncClient() as nobody:

            async def has_expired() -> bool:
                return (await nobody.get(url)).status_code == 403

            await wait_until(has_expired)
            problem = refused(await nobody.get(url), 403, "url_expired")
            assert problem["expired_at_s"] == int(httpx.URL(url).params["expires"])
            fresh = accepted(await api.client.get(f"/v1/files/{record['file_id']}"))["url"]
            assert (await nobody.get(fresh)).content == b"x"


async def test_urls_have_the_address_that_others_know(store: RunningStore) -> None:
    """Behind a proxy that is another than the request's."""
    async with run_gateway(store.url, public_url="https://runs.example/gateway/") as api:
        record = await stored(api, b"x")
        url = accepted(await api.client.get(f"/v1/files/{record['file_id']}"))["url"]
        assert url.startswith(f"https://runs.example/gateway/files/{record['file_id']}?")


async def test_every_process_opens_what_another_signed(store: RunningStore) -> None:
    """They share the secret, the records and the bytes."""
    async with run_gateway(store.url) as one:
        record = await stored(one)
        data_dir = one.data_dir
        url = accepted(await one.client.get(f"/v1/files/{record['file_id']}"))["url"]
        async with run_gateway(store.url, tenant=one.tenant, data_dir=data_dir) as two:
            assert (await two.client.get(url.replace(one.url, two.url))).content == CONTENT


async def test_the_files_that_a_log_names_get_urls(api: RunningGateway) -> None:
    """Those that the caller could ask for itself: not what is gone, another agent's, or never was a file."""
    run, other = await api.create_run(agent_id="mine"), await api.create_run(agent_id="others")
    output = await stored(api, path=f"/v1/runs/{run['id']}/files")
    gone = await stored(api, path=f"/v1/runs/{run['id']}/files")
    foreign = await stored(api, path=f"/v1/runs/{other['id']}/files")
    accepted(await api.client.delete(f"/v1/files/{gone['file_id']}"))
    about = {"name": "x", "size_bytes": 1, "content_type": "a/b"}
    named = [("file.created", about | {"file_id": file_id}) for file_id in (foreign["file_id"], "elsewhere {}")]
    accepted(await api.append(run["id"], *named))
    native = api.gateway.services
    key, _ = await api.gateway.access.create_key(
        tenant=api.tenant,
        name=None,
        principal=None,
        scopes=frozenset({RUNS_READ}),
        agents=frozenset({"mine"}),
        now_ms=0,
    )
    grant = await api.gateway.access.authenticate(key, now_ms=api.gateway.clock.now_ms())
    files = (await native.folds.snapshot(grant, run["id"])).state.files
    request = Request({"type": "http", "scheme": "https", "path": "/", "headers": [(b"host", b"runs.example")]})
    linked = await native.file_door.link_outputs(request, grant, files)
    assert [each.file.file_id for each in linked] == [
        output["file_id"],
        gone["file_id"],
        foreign["file_id"],
        "elsewhere {}",
    ]
    assert [each.link is None for each in linked] == [False, True, True, True]
    assert linked[0].link is not None
    url = linked[0].link.url
    assert url.startswith(f"https://runs.example/files/{output['file_id']}?")
    async with httpx.AsyncClient() as nobody:
        assert (await nobody.get(url.replace("https://runs.example", api.url))).content == CONTENT


# --- Ranges and conditions


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-", 10, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=100-99999999999", 100, len(CONTENT)),
        ("bytes=-99999999999", 0, len(CONTENT)),
        ("BYTES=262000-600000", 262_000, 600_001),
    ],
)
async def test_a_range_is_sent_alone(api: RunningGateway, asked: str, start: int, stop: int) -> None:
    """With its place and the size of the whole."""
    record = await stored(api, idempotency_key="ranges")
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content", headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=-0", "bytes=9999999999-"])
async def test_a_range_beyond_the_end_is_refused(api: RunningGateway, asked: str) -> None:
    """416, with the size."""
    record = await stored(api, idempotency_key="ranges")
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content", headers={"range": asked})
    problem = refused(answer, 416, "range_not_satisfiable")
    assert problem["size_bytes"] == len(CONTENT)
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=5-1", "bytes=-", "bytes=a-b", "bytes=1"])
async def test_what_is_no_single_range_is_answered_whole(api: RunningGateway, asked: str) -> None:
    """As the standard allows."""
    record = await stored(api, idempotency_key="ranges")
    answer = await api.client.get(f"/v1/files/{record['file_id']}/content", headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


async def test_what_a_client_has_is_not_sent_again(api: RunningGateway) -> None:
    """304 for its own tag; a range of another file's tag is the whole file."""
    record = await stored(api)
    path = f"/v1/files/{record['file_id']}/content"
    tag = (await api.client.head(path)).headers["etag"]
    assert (await api.client.get(path, headers={"if-none-match": f'"x", W/{tag}'})).status_code == 304
    assert (await api.client.get(path, headers={"if-none-match": '"x"'})).status_code == 200
    same = await api.client.get(path, headers={"range": "bytes=1-2", "if-range": tag})
    assert same.status_code == 206
    other = await api.client.get(path, headers={"range": "bytes=1-2", "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, CONTENT)


async def test_a_client_that_leaves_a_download_is_let_go(api: RunningGateway) -> None:
    """The gateway goes on serving, and reads no further for it."""
    record = await stored(api, b"x" * 30_000_000)
    for _ in range(3):
        async with api.client.stream("GET", f"/v1/files/{record['file_id']}/content") as answer:
            async for _ in answer.aiter_bytes():
                break
    assert (await api.client.head(f"/v1/files/{record['file_id']}/content")).status_code == 200
