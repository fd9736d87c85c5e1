"""Bodies: read within bounds, decoded into a type, or refused with the place that is wrong."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from gateway.edge.body import NESTING_LEVELS, check_nesting, decode_json, read_body, read_json, read_lines
from gateway.errors import BadRequest, GatewayError, InvalidBody, TooLarge
from tests.edge.serving import make_request


class Point(msgspec.Struct, forbid_unknown_fields=True):
    """A body with two fields, both with defaults."""

    x: int = 0
    more: Any = None


class Sealed(msgspec.Struct, forbid_unknown_fields=True):
    """A body whose content is passed on as it came."""

    content: msgspec.Raw
    next: Sealed | None = None


async def read_all(request: Request, **bounds: Any) -> list[bytes]:
    """Return every line of a streamed body."""
    limits = {"line_bytes": 1_000, "idle_s": 5.0} | bounds
    return [line async for batch in read_lines(request, **limits) for line in batch]


async def test_a_body_is_read_whole() -> None:
    """Chunks are joined in order."""
    assert await read_body(make_request([b"ab", b"", b"cd"]), limit_bytes=4) == b"abcd"


async def test_a_body_over_its_limit_is_refused_before_its_rest_is_read() -> None:
    """Chunks beyond the limit stay where they are."""
    request = make_request([b"abc", b"de", b"never read"])
    with pytest.raises(TooLarge) as refused:
        await read_body(request, limit_bytes=4)
    assert refused.value.facts == {"limit_bytes": 4}
    assert (await request.receive())["body"] == b"never read"


async def test_a_body_that_announces_too_much_is_refused_unread() -> None:
    """Content-Length is believed when it says no."""
    request = make_request([b"never read"], headers={"Content-Length": "5"})
    with pytest.raises(TooLarge):
        await read_body(request, limit_bytes=4)
    assert (await request.receive())["body"] == b"never read"


@pytest.mark.parametrize("length", ["", "x", "-1", "9" * 5_000])
async def test_a_content_length_that_is_no_number_does_not_fail(length: str) -> None:
    """Whatever the header says, the answer is the body or a refusal."""
    request = make_request([b"ab"], headers={"Content-Length": length})
    try:
        assert await read_body(request, limit_bytes=4) == b"ab"
    except TooLarge:
        assert length.startswith("9")


async def test_a_body_that_does_not_come_is_refused_in_time() -> None:
    """A client that trickles its body does not hold the request for ever."""
    request = make_request([b"ab"])
    receive, never = request.receive, asyncio.Event()

    async def receive_half() -> Any:
        message = await receive()
        if not message["body"]:
            await never.wait()
        return message

    with pytest.raises(BadRequest, match=r"within 0\.01 s"):
        await read_body(Request(request.scope, receive_half), limit_bytes=4, within_s=0.01)


async def test_a_compressed_body_is_refused_by_name() -> None:
    """A body that cannot be read is not called malformed."""
    with pytest.raises(BadRequest, match="gzip"):
        await read_body(make_request([b"x"], headers={"Content-Encoding": "gzip"}), limit_bytes=4)


async def test_a_client_that_leaves_ends_the_reading() -> None:
    """Half a body is never taken for a whole one."""
    with pytest.raises(ClientDisconnect):
        await read_body(make_request([b"{}"], disconnects=True), limit_bytes=4)


async def test_a_body_becomes_its_type() -> None:
    """What a handler gets is typed."""
    assert await read_json(make_request([b'{"x"', b":7}"]), Point, limit_bytes=99) == Point(x=7)


def test_no_body_is_all_defaults() -> None:
    """A POST without a body means its defaults."""
    assert decode_json(b"", Point) == Point()


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b" ",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b"{'x':1}",
        b'{"more":NaN}',
        b'{"more":"\xff"}',
        b'{"more":"\xed\xa0\x80"}',
        b'{"more":"\\ud800"}',
        b'{"more":"\\udc00\\ud800"}',
        b'{"\xff":1}',
        b'{"more":' + b"[" * 100_000,
        b'{"more":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"more":' + b'{"a":' * 100_000,
        b'{"more":"\x00"}',
        "{}".encode("utf-16"),
    ],
)
def test_what_is_not_json_is_a_bad_request(raw: bytes) -> None:
    """400, with a reason, and never a crash."""
    with pytest.raises(BadRequest):
        decode_json(raw, Point)


@pytest.mark.parametrize(
    ("raw", "path", "reason"),
    [
        (b'{"x":"1"}', "$.x", "Expected `int`, got `str`"),
        (b'{"x":1.5}', "$.x", "Expected `int`"),
        (b'{"x":1e999}', "$.x", "out of range"),
        (b'{"more":[1,-1e999]}', "$.more", "out of range"),
        (b'{"more":' + b"9" * 5_000 + b"}", "$.more", "out of range"),
        (b'{"y":1}', "$", "unknown field `y`"),
        (b"[]", "$", "Expected `object`, got `array`"),
        (b"null", "$", "Expected `object`, got `null`"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(raw: bytes, path: str, reason: str) -> None:
    """422 names the path and what was expected there."""
    with pytest.raises(InvalidBody, match=reason) as refused:
        decode_json(raw, Point)
    assert refused.value.facts["path"].startswith(path)


def test_a_refusal_does_not_repeat_a_megabyte() -> None:
    """A long name in a body does not come back in full."""
    with pytest.raises(InvalidBody) as refused:
        decode_json(b'{"' + b"y" * 1_000_000 + b'":1}', Point)
    assert len(refused.value.detail) < 1_000


@pytest.mark.parametrize("raw", [b"1e999", b'"\xff"', b"9" * 5_000, b'"\\ud800"'])
def test_content_passed_on_as_it_came_is_checked_as_well(raw: bytes) -> None:
    """What no reader could decode is not let in, even where nobody here needs to decode it."""
    with pytest.raises(GatewayError):
        decode_json(b'{"content":' + raw + b"}", Sealed)
    assert decode_json(b'{"content":[1]}', Sealed).content == msgspec.Raw(b"[1]")


@given(st.binary())
def test_any_bytes_are_a_value_or_a_refusal(raw: bytes) -> None:
    """No body makes the decoder fail, and whatever it lets in can be sent out again."""
    try:
        value = decode_json(raw, dict[str, Any])
    except (BadRequest, InvalidBody):
        return
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.booleans())
def test_any_json_arrives_as_it_was_sent(value: Any, escaped: bool) -> None:
    """Every value that JSON can say is let in, unchanged."""
    raw = json.dumps({"more": value}, ensure_ascii=escaped).encode()
    assert decode_json(raw, Point).more == value


def measure_depth(value: Any) -> int:
    """Return how many levels of arrays and objects a value has."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(measure_depth, inner), default=0)


TRICKY = st.text(alphabet='[]{}"\\a')


@given(
    st.recursive(TRICKY, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4)),
    st.integers(0, 140),
)
def test_nesting_is_counted_outside_strings_only(value: Any, wraps: int) -> None:
    """Brackets, quotes and backslashes in strings change nothing about the depth."""
    for _ in range(wraps):
        value = [value, "[" * NESTING_LEVELS]
    raw = json.dumps(value).encode()
    try:
        check_nesting(raw)
    except BadRequest:
        assert measure_depth(value) > NESTING_LEVELS
    else:
        assert measure_depth(value) <= NESTING_LEVELS


def test_many_brackets_beside_one_another_are_no_depth() -> None:
    """A batch of a thousand events is not deep, only long."""
    check_nesting(b"[" + b",".join([b'{"data":{"text":"[[\\"{{"}}'] * 1_000) + b"]")
    check_nesting(b'"' + b"[" * 1_000 + b'"')


LINES = st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")))


@given(LINES, st.lists(st.integers(0, 400)), st.booleans())
async def test_lines_do_not_depend_on_how_they_were_cut(lines: list[bytes], cuts: list[int], ended: bool) -> None:
    """However the network splits a streamed body, its lines are the same."""
    body = b"\n".join(lines) + (b"\n" if ended else b"")
    places = sorted(min(cut, len(body)) for cut in cuts)
    chunks = [body[low:high] for low, high in zip([0, *places], [*places, len(body)], strict=True)]
    assert await read_all(make_request(chunks)) == [line for line in lines if line.strip()]


async def test_lines_come_as_soon_as_they_are_whole() -> None:
    """Everything that one read brought is one batch; the rest of a line waits for its end."""
    request = make_request([b"1\n2\n3", b"3\n\n", b"4"])
    batches = [batch async for batch in read_lines(request, line_bytes=9, idle_s=5.0)]
    assert batches == [[b"1", b"2"], [b"33"], [b"4"]]


async def test_a_batch_has_a_bound() -> None:
    """A read that brings thousands of lines is handed over in parts."""
    request = make_request([b"x\n" * 5])
    batches = [len(batch) async for batch in read_lines(request, line_bytes=9, batch_lines=2, idle_s=5.0)]
    assert batches == [2, 2, 1]


@pytest.mark.parametrize("chunks", [[b"1\n2\n", b"12345678", b"90"], [b"1\n2\n1234567890\n3\n"]])
async def test_lines_before_a_long_one_are_taken(chunks: list[bytes]) -> None:
    """A line over its bound is refused, whole or growing; those before it came through."""
    taken: list[bytes] = []

    async def take() -> None:
        async for batch in read_lines(make_request(chunks), line_bytes=9, idle_s=5.0):
            taken.extend(batch)

    with pytest.raises(TooLarge):
        await take()
    assert taken == [b"1", b"2"]


async def test_a_line_cut_by_a_disconnect_is_dropped() -> None:
    """What may be half a line is not taken for one."""
    taken: list[bytes] = []

    async def take() -> None:
        async for batch in read_lines(make_request([b"1\n2"], disconnects=True), line_bytes=9, idle_s=5.0):
            taken.extend(batch)

    with pytest.raises(ClientDisconnect):
        await take()
    assert taken == [b"1"]


async def test_a_silent_producer_is_refused_in_time() -> None:
    """A stream on which nothing comes ends."""
    never = asyncio.Event()

    async def receive() -> Any:
        await never.wait()

    request = Request(make_request().scope, receive)
    with pytest.raises(BadRequest, match=r"for 0\.01 s"):
        await read_all(request, idle_s=0.01)


def test_depth_is_measured_as_json_means_it() -> None:
    """The measure that the tests compare with is right on plain cases."""
    assert [measure_depth(value) for value in (1, [], [1, [2]], {"a": {"b": [math.pi]}})] == [0, 1, 2, 3]
