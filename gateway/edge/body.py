"""Request bodies: bounded, timed, decoded into a type, or refused with the place that is wrong."""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from collections.abc import AsyncIterator, Iterator
from functools import cache
from itertools import accumulate
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from gateway.edge.limits import announced_bytes, keep_pace, visit_of
from gateway.edge.waits import Waits
from gateway.errors import BadRequest, GatewayError, InvalidBody, TooLarge

T = TypeVar("T")

HALVED: Final = "The JSON has half of a character, a lone surrogate such as \\ud83d: cut strings between characters."

BODY_S: Final = 30.0
NESTING_LEVELS: Final = 128
PASSES: Final = 3
DETAIL_CHARS: Final = 500
_PATH: Final = re.compile(r" - at `([^`]*)`$")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NEITHER: Final = bytes(set(_NOT_BRACKETS) - set(b'"'))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


async def read_body(request: Request, *, limit_bytes: int, within_s: float = BODY_S) -> bytes:
    """Return the whole body, never holding more of it than the limit and one network read.

    Raises:
        TooLarge: it is over `limit_bytes`, by its Content-Length or by what came.
        BadRequest: it did not arrive within `within_s`, or is compressed.
        Overloaded: the bodies of other requests leave no room for it.
        ClientDisconnect: the client left first; nobody waits for an answer.
    """
    check_headers(request, limit_bytes)
    visit = visit_of(request.scope)
    if visit is not None and (expected := _expected_bytes(request, limit_bytes)):
        await visit.hold(expected)
    chunks: list[bytes] = []
    received_bytes = 0
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                received_bytes += len(chunk)
                if received_bytes > limit_bytes:
                    raise too_large("The body", limit_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise BadRequest(f"The body did not arrive within {within_s:g} s.") from None
    finally:
        if visit is not None:
            visit.count(received_bytes)
    return b"".join(chunks)


def _expected_bytes(request: Request, limit_bytes: int) -> int:
    """Return what a body may take: what it announces, else what it may have."""
    chunked = "transfer-encoding" in request.headers
    return limit_bytes if chunked else announced_bytes(request.headers.raw)


async def read_json(request: Request, kind: type[T], *, limit_bytes: int, within_s: float = BODY_S) -> T:
    """Return the body as a `kind`; see `read_body` and `decode_json` for what is refused."""
    return decode_json(await read_body(request, limit_bytes=limit_bytes, within_s=within_s), kind)


def decode_json(raw: bytes, kind: type[T]) -> T:
    """Return JSON text as a `kind` that can be encoded again; no bytes at all mean `{}`.

    Raises:
        BadRequest: not JSON, not UTF-8, with half of a character, or nested deeper than 128 levels.
        InvalidBody: JSON of the wrong shape; `facts["path"]` says where, `$` being the whole.
    """
    try:
        check_nesting(raw)
        shape: Any = kind
        if _keeps_raw(shape):
            # msgspec only skips over a Raw: its UTF-8 and its numbers' range would go unseen.
            msgspec.json.decode(raw or b"{}")
        value: T = _decoder(shape).decode(raw or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = _prefer_malformed(raw, error)
        if not isinstance(found, msgspec.ValidationError) and is_halved(raw):
            raise BadRequest(HALVED) from None
        raise explain_undecodable(found) from None
    return value


def load_halved(raw: bytes) -> Any:
    """Return JSON text that may hold half of a character, which msgspec takes for a mistake in the text.

    Raises:
        ValueError: it is no JSON in UTF-8.
    """
    return json.loads(raw.decode(), parse_constant=_refuse_constant)


def is_halved(raw: bytes) -> bool:
    """Whether text that msgspec could not decode is JSON but for half of a character."""
    try:
        load_halved(raw)
    except ValueError:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _prefer_malformed(raw: bytes, error: Exception) -> Exception:
    """Return what is wrong with the text itself, where that is more than the shape that msgspec stopped at."""
    if isinstance(error, msgspec.ValidationError):
        try:
            msgspec.json.decode(raw or b"{}")
        except msgspec.ValidationError:
            return error
        except (msgspec.DecodeError, UnicodeDecodeError) as malformed:
            return malformed
    return error


def explain_undecodable(error: Exception) -> GatewayError:
    """Return the refusal that tells a caller what msgspec found wrong, and where."""
    if isinstance(error, msgspec.ValidationError):
        message = str(error)
        found = _PATH.search(message)
        path = found[1] if found else "$"
        return InvalidBody(f"{_PATH.sub('', message)[:DETAIL_CHARS]}, at {path[:DETAIL_CHARS]}.", path=path)
    if isinstance(error, UnicodeDecodeError):
        return BadRequest("The JSON is not valid UTF-8.")
    return BadRequest(f"This is not JSON: {str(error)[:DETAIL_CHARS]}.")


def check_nesting(raw: bytes) -> None:
    """Refuse JSON nested so deeply that a later encoder, schema check or reader would fail on it.

    Raises:
        BadRequest: more than 128 levels.
    """
    if raw.count(b"[") + raw.count(b"{") <= NESTING_LEVELS:
        return
    # Odd backslashes go with the quote that they escape.
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    # Nothing is left of a string without brackets, nor, after a few passes, of what is not deep.
    left = bare.translate(None, _NEITHER).replace(b'""', b"")
    for _ in range(PASSES):
        left = left.replace(b"{}", b"").replace(b"[]", b"")
    if b'"' not in left and len(left) < NESTING_LEVELS - 2 * PASSES:
        return
    # Every second piece between quotes is a string.
    brackets = b"".join(bare.split(b'"')[::2]).translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(array("b", brackets)), default=0) > NESTING_LEVELS:
        detail = f"The JSON is nested deeper than {NESTING_LEVELS} levels."
        raise BadRequest(detail, limit_levels=NESTING_LEVELS)


async def read_lines(
    request: Request, *, line_bytes: int, batch_lines: int = 1_000, idle_s: float, waits: Waits | None = None
) -> AsyncIterator[list[bytes]]:
    """Yield a streamed NDJSON body as batches of whole lines, each as soon as it has come.

    Blank lines are left out. Lines before a bad one are yielded before it is refused.
    The last line needs no newline if the body ends properly; a line cut off by a disconnect is dropped.

    Raises:
        TooLarge: a line is longer than `line_bytes`.
        BadRequest: nothing came for `idle_s`, or the body is compressed.
        Overloaded: the bodies of other requests leave no room for a line that has begun.
        ClientDisconnect: the client left within the body.
        Draining: the process is about to stop; no line was lost that was yielded.
    """
    check_headers(request, None)
    chunks, visit, waits = request.stream(), visit_of(request.scope), waits or Waits()
    rest, held_bytes = bytearray(), 0
    while (chunk := await _next_chunk(chunks, idle_s, waits)) is not None:
        await keep_pace(request.scope, len(chunk))
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            for batch in _gather_lines(bytes(rest + head).split(b"\n"), line_bytes, batch_lines):
                yield batch
            rest.clear()
        rest += tail
        if len(rest) > line_bytes:
            raise too_large("A line", line_bytes)
        if visit is not None and len(rest) > held_bytes:
            # The longest part of a line so far, until the request ends: what many senders begin must fit, too.
            await visit.hold(len(rest) - held_bytes)
            held_bytes = len(rest)
    for batch in _gather_lines([bytes(rest)], line_bytes, batch_lines):
        yield batch


async def _next_chunk(chunks: AsyncIterator[bytes], idle_s: float, waits: Waits) -> bytes | None:
    try:
        async with waits.at_most(idle_s):
            return await anext(chunks, None)
    except TimeoutError:
        raise BadRequest(f"No line came for {idle_s:g} s.") from None


def _gather_lines(lines: list[bytes], line_bytes: int, batch_lines: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        if len(line) > line_bytes:
            if batch:
                yield batch
            raise too_large("A line", line_bytes)
        if not line or line.isspace():
            continue
        batch.append(line)
        if len(batch) == batch_lines:
            yield batch
            batch = []
    if batch:
        yield batch


def check_headers(request: Request, limit_bytes: int | None) -> None:
    """Refuse a body that is compressed, or that announces more than `limit_bytes`.

    Raises:
        BadRequest, TooLarge: it is.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise BadRequest(f"Bodies are read uncompressed, not as {encoding[:DETAIL_CHARS]!r}.")
    length = request.headers.get("content-length", "")
    if limit_bytes is not None and length.isdecimal() and int(length[:20]) > limit_bytes:
        raise too_large("The body", limit_bytes)


def too_large(what: str, limit_bytes: int) -> TooLarge:
    """Return the refusal of what is over `limit_bytes`."""
    return TooLarge(f"{what} is over {limit_bytes:,} bytes.", limit_bytes=limit_bytes)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@cache
def _keeps_raw(kind: Any) -> bool:
    """Whether any part of `kind` is left undecoded."""
    waiting, seen = [msgspec.inspect.type_info(kind)], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, msgspec.inspect.RawType):
            return True
        if id(part) not in seen:
            seen.add(id(part))
            waiting += _parts(part)
    return False


def _parts(part: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    for name in part.__struct_fields__:
        value = getattr(part, name)
        for item in value if isinstance(value, tuple) else (value,):
            inner = item.type if isinstance(item, msgspec.inspect.Field) else item
            if isinstance(inner, msgspec.inspect.Type):
                yield inner
