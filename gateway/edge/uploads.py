"""A file as a request brings it: raw, or as the one part of a form; read as it comes, never held whole."""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator
from email.message import Message
from typing import Final

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from gateway.edge.body import check_headers
from gateway.edge.limits import keep_pace
from gateway.errors import BadRequest, InvalidBody

FORM: Final = "multipart/form-data"
IDLE_S: Final = 30.0
UPLOAD_S: Final = 12 * 3600.0
# What a form has around its file: boundaries and headers.
FORM_BYTES: Final = 64 * 1024
# RFC 2046, section 5.1.1.
BOUNDARY_CHARS: Final = 70
TOLD_CHARS: Final = 200
_DIGEST: Final = re.compile(r":([A-Za-z0-9+/]{43}=):")


class Upload(msgspec.Struct, frozen=True):
    """A file that is coming: what its sender calls it, where it says so, and its bytes."""

    name: str | None
    content_type: str | None
    chunks: AsyncIterator[bytes]
    sha256: str | None = None
    """What its sender says that its digest is, in hex."""


async def open_upload(request: Request, *, limit_bytes: int, idle_s: float = IDLE_S) -> Upload:
    """Return the file of a request, of a form once its beginning has come.

    Args:
        limit_bytes: What its Content-Length may announce; what really comes, the reader counts.
        idle_s: How long the sender may be silent.

    Raises:
        TooLarge: it announces more than the limit.
        BadRequest: it is compressed, or no form though it says so; from `chunks` too. Or it has a digest that is
            none, or is a form's.
        InvalidBody: a form without a file; from `chunks`, one with more than a file.
    """
    content_type = request.headers.get("content-type")
    media_type, options = parse_options_header(content_type)
    is_form = media_type.decode("latin-1").lower() == FORM
    check_headers(request, limit_bytes + (FORM_BYTES if is_form else 0))
    chunks, sha256 = _read_chunks(request, idle_s), _read_digest(request)
    if not is_form:
        return Upload(_read_name(request.headers.get("content-disposition")), content_type, chunks, sha256)
    if sha256 is not None:
        raise BadRequest("A digest is taken of a body that is the file, not of a form.")
    form = _Form(_parse_boundary(options.get(b"boundary", b"")))
    await form.begin(chunks)
    disposition, part_type = (form.headers.get(name) for name in (b"content-disposition", b"content-type"))
    name = parse_options_header(disposition)[1].get(b"filename")
    if name is None:
        raise InvalidBody("The form's part has no filename: send one file, as one part.", path="$")
    return Upload(_decode(name), None if part_type is None else _decode(part_type), form.rest(chunks))


async def _read_chunks(request: Request, idle_s: float) -> AsyncGenerator[bytes, None]:
    chunks, loop = request.stream(), asyncio.get_running_loop()
    deadline_s = loop.time() + UPLOAD_S
    while True:
        try:
            async with asyncio.timeout_at(min(loop.time() + idle_s, deadline_s)):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise BadRequest(f"Nothing came for {idle_s:g} s, or the file not within {UPLOAD_S:g} s.") from None
        if chunk is None:
            return
        await keep_pace(request.scope, len(chunk))
        yield chunk


class _Form:
    """A form with one part, parsed as it comes; between two chunks it holds no more than the part's headers."""

    def __init__(self, boundary: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self._parts = 0
        self._in_body = False
        self._ended = False
        self._field, self._value = bytearray(), bytearray()
        self._data: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_body,
                "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
                "on_end": self._end,
            },
        )

    async def begin(self, chunks: AsyncIterator[bytes]) -> None:
        """Read up to the part's bytes.

        Raises:
            BadRequest: it is no form, or ends before.
        """
        while not self._in_body:
            self._feed(await anext(chunks, None))

    async def rest(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the part's bytes.

        Raises:
            BadRequest: the form ends within them.
            InvalidBody: another part follows.
        """
        while True:
            found, self._data = self._data, []
            for data in found:
                yield data
            if self._ended:
                return
            self._feed(await anext(chunks, None))

    def _feed(self, chunk: bytes | None) -> None:
        if chunk is None:
            raise BadRequest("The form ends before its last boundary.")
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"This is no {FORM}: {str(error)[:TOLD_CHARS]}.") from None
        if self._parts > 1:
            raise InvalidBody("The form has more than one part: send one file at a time.", path="$")

    def _begin_part(self) -> None:
        self._parts += 1

    def _end_header(self) -> None:
        self.headers[bytes(self._field).strip().lower()] = bytes(self._value).strip()
        self._field.clear()
        self._value.clear()

    def _begin_body(self) -> None:
        self._in_body = True

    def _end(self) -> None:
        self._ended = True


def _parse_boundary(boundary: bytes) -> bytes:
    if not 0 < len(boundary) <= BOUNDARY_CHARS:
        raise BadRequest(f"Content-Type: {FORM} with a boundary of 1 to {BOUNDARY_CHARS} characters is expected.")
    return boundary


def _read_digest(request: Request) -> str | None:
    """Return the SHA-256 that a request has of its content (RFC 9530), in hex; None where it has none."""
    found = None
    for name in ("content-digest", "repr-digest"):
        for item in ",".join(request.headers.getlist(name)).split(","):
            algorithm, _, value = item.strip().partition("=")
            if algorithm.lower() != "sha-256":
                continue
            match = _DIGEST.fullmatch(value)
            if match is None:
                raise BadRequest(f"{name}: expected sha-256=:…:, 32 bytes in base64.")
            sha256 = b64decode(match[1]).hex()
            if found not in (None, sha256):
                raise BadRequest("content-digest and repr-digest name different digests of one file.")
            found = sha256
    return found


def _read_name(disposition: str | None) -> str | None:
    """Return the filename of a Content-Disposition, in whichever way RFC 6266 lets it be written."""
    if disposition is None:
        return None
    message = Message()
    message["Content-Disposition"] = _decode(disposition.encode("latin-1"))
    return message.get_filename()


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
