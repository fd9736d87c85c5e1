"""Files for whoever has no key: URLs that open one file for a while, made for those who may have it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.access import Grant
from gateway.domain.files import FileRecord, parse_file_id
from gateway.domain.fold_state import File
from gateway.edge.downloads import Content, answer_file
from gateway.edge.query import parse_query
from gateway.edge.signed_urls import sign_file, verify_file
from gateway.entry.callers import Callers
from gateway.service.files import Files
from gateway.store.clock import StoreClock


class Link(msgspec.Struct, frozen=True):
    """An address that opens a file without a key until `expires_ms`, Unix time."""

    url: str
    expires_ms: int


class LinkedFile(msgspec.Struct, frozen=True):
    """A file that a run's log names; `link` is None where there is no such file, or none for the caller."""

    file: File
    link: Link | None


class FileDoor:
    """Makes signed URLs, and opens what they name.

    Args:
        public_url: The address that others know the gateway by; None to use that of each request.
        lifetime_ms: How long a URL is good for.
    """

    def __init__(
        self, callers: Callers, files: Files, clock: StoreClock, *, public_url: str | None, lifetime_ms: int
    ) -> None:
        self._callers = callers
        self._files = files
        self._clock = clock
        self._public_url = public_url
        self._lifetime_ms = lifetime_ms

    async def link(self, request: Request, record: FileRecord) -> Link:
        """Return a fresh URL of a file that the request's caller may have."""
        expires_s = (self._clock.now_ms() + self._lifetime_ms) // 1000
        query = sign_file(record.tenant, record.file_id, await self._callers.signing_secret(), expires_s=expires_s)
        base = self._public_url or f"{request.url.scheme}://{request.url.netloc}"
        return Link(f"{base.rstrip('/')}/files/{record.file_id}?{query}", expires_s * 1000)

    async def link_outputs(self, request: Request, grant: Grant, named: Sequence[File]) -> list[LinkedFile]:
        """Return the files that a run's log names (`Folds.snapshot(…).state.files`), with a fresh URL each.

        A log may name any file: only what the caller could ask for itself gets a URL.
        """
        records = await self._files.find(grant, [file.file_id.upper() for file in named])
        return [
            LinkedFile(file, None if record is None else await self.link(request, record))
            for file, record in zip(named, records, strict=True)
        ]

    async def open(self, request: Request) -> Response:
        """Answer `GET /files/{id}?expires=…&signature=…`.

        Raises:
            SignatureInvalid, UrlExpired: the URL opens nothing, or no more.
            NotFound: the file has been removed since.
        """
        file_id = parse_file_id(request.path_params["file_id"])
        secret = await self._callers.signing_secret()
        query = parse_query(request.scope["query_string"])
        tenant = verify_file(file_id, query, secret, now_ms=self._clock.now_ms())
        return await self.answer(request, await self._files.get_signed(tenant, file_id))

    async def answer(self, request: Request, record: FileRecord) -> Response:
        """Return a file's bytes as the request asks for them."""
        content = Content(record.name, record.size_bytes, record.content_type, record.sha256, record.created_ms)
        return await answer_file(request, content, lambda start, stop: self._files.open(record, start, stop))
