"""Files as their tests send and list them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.native import accepted
from tests.support.running import RunningGateway

CONTENT = bytes(range(256)) * 5_000


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield a body whose length is not announced."""
    for part in parts:
        yield part


async def send(
    api: RunningGateway, content: Any = CONTENT, *, name: str = "data.bin", path: str = "/v1/files", **headers: str
) -> httpx.Response:
    """Send a file; header names are written with underscores."""
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return await api.client.post(path, params={"name": name}, content=content, headers=named)


async def stored(api: RunningGateway, content: Any = CONTENT, **about: str) -> dict[str, Any]:
    """Store a file and return its record."""
    return accepted(await send(api, content, **about), 201)


async def listed(api: RunningGateway, **params: Any) -> list[str]:
    """Return the ids of all listed files."""
    found: list[str] = []
    while True:
        page = accepted(await api.client.get("/v1/files", params=params))
        found += [file["file_id"] for file in page["data"]]
        if not page["has_more"]:
            return found
        params["cursor"] = page["next_cursor"]


def kept(api: RunningGateway) -> list[str]:
    """Return the bytes that the gateway keeps, finished or not, by their names."""
    root = api.data_dir / "files"
    return sorted(path.name for path in root.rglob("*") if path.is_file())
