"""Uploads: read as they come, whatever the pieces; a form is its one file."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from gateway.edge.uploads import FORM_BYTES, Upload, open_upload
from gateway.errors import BadRequest, GatewayError, InvalidBody, TooLarge
from tests.edge.serving import make_request

BOUNDARY = "-----x7"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(*parts: tuple[str, bytes]) -> bytes:
    """Return a form of parts: the rest of a part's Content-Disposition, and its bytes."""
    lines = b""
    for disposition, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"{disposition}\r\nContent-Type: a/b\r\n\r\n'
        lines += head.encode() + content + b"\r\n"
    return lines + f"--{BOUNDARY}--\r\n".encode()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Return the body in pieces."""
    ends = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return [body[a:b] for a, b in pairwise(ends)]


async def read(chunks: list[bytes], *, limit_bytes: int = 10**9, **more: Any) -> tuple[Upload, bytes]:
    """Return an upload, and its bytes."""
    upload = await open_upload(make_request(chunks, **more), limit_bytes=limit_bytes)
    return upload, b"".join([chunk async for chunk in upload.chunks])


@given(
    content=st.binary(max_size=200)
    | st.sampled_from([b"\r\n--", b"\r\n-----x7", b"--" + BOUNDARY.encode()[:-1], b"\r\n"]),
    places=st.lists(st.integers(0, 1000), max_size=12),
)
def test_a_form_gives_its_files_bytes(content: bytes, places: list[int]) -> None:
    """However it is cut into pieces, and whatever in it looks like a boundary."""
    upload, found = asyncio.run(read(cut(form(('; filename="x"', content)), places), headers=FORM))
    assert (upload.name, upload.content_type, found) == ("x", "a/b", content)


@given(places=st.lists(st.integers(0, 1000), max_size=5), end=st.integers(0, 500))
def test_a_form_that_is_cut_off_is_never_taken_for_whole(places: list[int], end: int) -> None:
    """Wherever it ends."""
    body = form(('; filename="x"', b"y" * 100))
    # Behind the last boundary only the end of its line is missing.
    whole = end >= len(body) - 2
    try:
        _, found = asyncio.run(read(cut(body[:end], places), headers=FORM))
    except BadRequest:
        assert not whole
    else:
        assert (whole, found) == (True, b"y" * 100)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (form(), BadRequest),
        (form(("", b"x")), InvalidBody),
        (form(('; filename="x"', b"x"), ("", b"y")), InvalidBody),
        (b"--" + b"y" * 200, BadRequest),
        (b"", BadRequest),
    ],
    ids=["no part", "no file", "two parts", "another boundary", "nothing"],
)
async def test_a_form_that_is_not_one_file_is_refused(body: bytes, error: type[GatewayError]) -> None:
    """With the reason."""
    with pytest.raises(error):
        await read([body], headers=FORM)


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "x" * 71])
async def test_a_form_without_a_usable_boundary_is_refused(boundary: str) -> None:
    """It cannot be read."""
    with pytest.raises(BadRequest):
        await read([b"x"], headers={"content-type": f"multipart/form-data{boundary}"})


async def test_endless_headers_of_a_part_are_refused() -> None:
    """They are what is held in memory."""
    body = f"--{BOUNDARY}\r\n".encode() + b"X: " + b"y" * 100_000
    with pytest.raises(BadRequest):
        await read(cut(body, list(range(0, 100_000, 1000))), headers=FORM)


async def test_a_raw_body_is_the_file() -> None:
    """Name and type stand in headers, if they do."""
    headers = {"content-type": "a/b", "content-disposition": 'attachment; filename="x y"'}
    upload, found = await read([b"ab", b"", b"cd"], headers=headers)
    assert (upload.name, upload.content_type, found) == ("x y", "a/b", b"abcd")
    upload, found = await read([])
    assert (upload.name, upload.content_type, found) == (None, None, b"")


@pytest.mark.parametrize("disposition", ["attachment", "", ";;;", "attachment; filename*=x''%ff; =\"", "\x00"])
async def test_a_disposition_without_a_filename_is_no_failure(disposition: str) -> None:
    """There just is no name, or one that is refused later."""
    upload, _ = await read([b"x"], headers={"content-disposition": disposition})
    assert upload.name is None or isinstance(upload.name, str)


async def test_what_announces_too_much_is_refused_unread() -> None:
    """A form may have a little around its file."""
    for headers in ({"content-length": "11"}, {**FORM, "content-length": str(11 + FORM_BYTES)}):
        with pytest.raises(TooLarge):
            await read([b"x"], limit_bytes=10, headers=headers)
    _, found = await read([form(('; filename="x"', b"y"))], limit_bytes=10, headers={**FORM, "content-length": "200"})
    assert found == b"y"


async def test_a_sender_that_falls_silent_is_refused() -> None:
    """It does not hold the request for ever."""
    request, never = make_request([b"ab"]), asyncio.Event()
    receive = request.receive

    async def receive_half() -> Any:
        message = await receive()
        if not message["body"]:
            await never.wait()
        return message

    request._receive = receive_half
    upload = await open_upload(request, limit_bytes=10, idle_s=0.01)
    with pytest.raises(BadRequest, match="Nothing came"):
        _ = [chunk async for chunk in upload.chunks]


async def test_a_sender_that_leaves_is_no_end() -> None:
    """What it sent is not taken for the file."""
    with pytest.raises(ClientDisconnect):
        await read([b"ab"], disconnects=True)
