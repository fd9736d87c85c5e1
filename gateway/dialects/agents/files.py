"""The files a run made, with addresses that open them for a while."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from gateway.dialects.agents.project import output_file
from gateway.dialects.agents.wire import OutputFile
from gateway.domain.access import Grant
from gateway.domain.fold_state import File
from gateway.domain.run import Run
from gateway.entry.services import Services

PAGE_FILES = 100


async def output_files(
    services: Services, request: Request, grant: Grant, run: Run, named: Sequence[File] | None
) -> list[OutputFile]:
    """Return a run's files, oldest first, each with a fresh URL.

    Args:
        named: The files that the run's log names; None where the log has expired, and the files are looked up.
    """
    if named is None:
        return await _stored_files(services, request, grant, run)
    # A file that is announced twice is one file.
    distinct = list({file.file_id: file for file in named}.values())
    return [
        output_file(
            linked.file.name,
            linked.file.size_bytes,
            None if linked.link is None else linked.link.url,
            None if linked.link is None else linked.link.expires_ms,
        )
        for linked in await services.file_door.link_outputs(request, grant, distinct)
    ]


async def _stored_files(services: Services, request: Request, grant: Grant, run: Run) -> list[OutputFile]:
    found: list[OutputFile] = []
    before = None
    while True:
        page = await services.files.list(grant, run_id=run.id, before=before, limit=PAGE_FILES)
        for stored in page.files:
            link = await services.file_door.link(request, stored)
            found.append(output_file(stored.name, stored.size_bytes, link.url, link.expires_ms))
        before = page.next_before
        if before is None:
            return found[::-1]
