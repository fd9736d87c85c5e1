"""The bytes of files: in a local directory, or in a bucket that speaks S3. What they mean, the records say.

A blob's name is `folder/file`, made by the gateway; it is written once, whole or not at all, and never changed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from gateway.store.blobs.local import LocalBlobs

FOLDER: Final = "files"


class Blobs(Protocol):
    """Where blobs are kept. Every method may raise StoreUnavailable."""

    async def write(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep what `pieces` yield as the blob `name`; if they fail, nothing is kept and their error is raised."""

    async def open(self, name: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a blob from `start` up to `stop`, in pieces, once it is sure that the blob is there."""

    async def remove(self, name: str) -> None:
        """Remove a blob; one that is not there is none to remove."""

    def list(self, folder: str) -> AsyncGenerator[tuple[str, int], None]:
        """Yield the name of every blob in a folder, and when it was written, in Unix ms."""

    async def remove_unfinished(self, before_ms: int) -> None:
        """Remove what writers left behind that died before `before_ms`, in Unix ms."""


def open_blobs(url: str | None, data_dir: Path) -> Blobs:
    """Return the place for files that `url` names; without one, a folder of the data directory.

    Args:
        url: `s3://bucket/prefix`, with credentials and endpoint in the usual `AWS_…` variables, or
            `file:///directory`, such as one that several machines share.
    """
    if url is None:
        return LocalBlobs(data_dir.expanduser().absolute() / FOLDER)
    if url.startswith("file://"):
        return LocalBlobs(Path(unquote(urlsplit(url).path)))
    # Its library takes 15 MiB of memory, which a gateway with local files can do without.
    from gateway.store.blobs.s3 import S3Blobs

    return S3Blobs(url)
