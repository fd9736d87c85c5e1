"""Routes of files: send, find, fetch and delete them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer, run_id_of, writing_scope
from gateway.dialects.native.paging import PAGING, read_limit
from gateway.dialects.native.project import at, file_body, list_body
from gateway.domain import access
from gateway.domain.files import FileRecord, parse_file_id
from gateway.edge import query as q
from gateway.edge.uploads import Upload, open_upload
from gateway.errors import BadRequest, NotFound
from gateway.service.actors import parse_run_id
from gateway.service.files import Announcement, NewFile


class FileRoutes:
    """Files as resources."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.find, methods=["GET"]),
            Route("/v1/files/{file_id}/content", self.fetch, methods=["GET"]),
            Route("/v1/files/{file_id}", self.get, methods=["GET"]),
            Route("/v1/files/{file_id}", self.delete, methods=["DELETE"]),
            Route("/v1/runs/{run_id}/files", self.upload_output, methods=["POST"]),
            Route("/files/{file_id}", self.open_signed, methods=["GET"]),
        ]

    async def upload(self, request: Request) -> Response:
        """`POST /v1/files?name=`: a file of the tenant."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("name",))
        upload = await self._open(request)
        record = await self._native.files.upload(caller, _new_file(query, upload), upload.chunks)
        return answer(self._body(record), 201)

    async def upload_output(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/files?name=`: a file that a run made, announced in its log."""
        caller = await self._native.callers.authenticate(request, writing_scope(request.headers.get("lease")))
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("name", "attempt", "step_id"))
        how = Announcement(
            lease=request.headers.get("lease"),
            attempt=q.read_int(query, "attempt", low=1, high=2**53),
            step_id=q.read_text(query, "step_id", max_chars=128) or None,
        )
        run_id, upload = run_id_of(request), await self._open(request)
        record, seq = await self._native.files.upload_output(
            caller, run_id, _new_file(query, upload), upload.chunks, how
        )
        return answer(self._body(record) | {"seq": seq}, 201)

    async def find(self, request: Request) -> Response:
        """`GET /v1/files`: files, newest first."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("run_id", *PAGING))
        run_id = q.read_text(query, "run_id")
        page = await self._native.files.list(
            caller.grant,
            run_id=None if run_id is None else parse_run_id(run_id),
            before=_read_place(query),
            limit=read_limit(query, self._native.bounds.list_page),
        )
        return answer(list_body([self._body(record) for record in page.files], page.next_before))

    async def get(self, request: Request) -> Response:
        """`GET /v1/files/{id}`: the record, and an address that opens the file without a key for a while."""
        record = await self._record(request)
        link = await self._native.file_door.link(request, record)
        return answer(self._body(record) | {"url": link.url, "url_expires_at": at(link.expires_ms)})

    async def fetch(self, request: Request) -> Response:
        """`GET /v1/files/{id}/content`: the bytes."""
        return await self._native.file_door.answer(request, await self._record(request))

    async def open_signed(self, request: Request) -> Response:
        """`GET /files/{id}?expires=…&signature=…`: the bytes, without a key."""
        return await self._native.file_door.open(request)

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/files/{id}`: remove the file; logs that name it stay as they are."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        record = await self._native.files.delete(caller.grant, parse_file_id(request.path_params["file_id"]))
        return answer({"file_id": record.file_id, "deleted": True})

    async def _open(self, request: Request) -> Upload:
        return await open_upload(request, limit_bytes=self._native.bounds.file_bytes)

    async def _record(self, request: Request) -> FileRecord:
        caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ("ticket",))
        return await self._native.files.get(caller.grant, parse_file_id(request.path_params["file_id"]))

    def _body(self, record: FileRecord) -> dict[str, object]:
        return file_body(record, self._native.files.expires_ms(record))


def _new_file(query: q.Query, upload: Upload) -> NewFile:
    return NewFile(q.read_text(query, "name") or upload.name, upload.content_type, upload.sha256)


def _read_place(query: q.Query) -> str | None:
    cursor = q.read_text(query, "cursor")
    try:
        return None if cursor is None else parse_file_id(cursor)
    except NotFound:
        raise BadRequest(
            f"cursor: {(cursor or '')[:64]!r} is not a next_cursor of this list.", parameter="cursor"
        ) from None
