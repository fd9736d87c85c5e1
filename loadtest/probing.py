"""How long a server lets a small request wait at most: the pauses of its event loop, as seen from outside."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

from loadtest.targets import Target

EVERY_S: Final = 0.01


class Probing:
    """Asks one connection for `/readyz`, again and again, while a block runs; `most_ms` is the longest wait.

    A hundred requests a second cost a server one or two percent of a core. What comes out is an upper bound: the tool
    itself may have been kept waiting for its core.
    """

    def __init__(self, target: Target) -> None:
        self._address = target.address
        self._request = b"GET /readyz HTTP/1.1\r\nHost: load\r\n\r\n"
        self.most_ms = 0.0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._asking.cancel()
        await asyncio.wait([self._asking])
        self._writer.close()

    async def _ask(self) -> None:
        while True:
            began = time.perf_counter()
            self._writer.write(self._request)
            if not await self._reader.read(65_536):
                return
            self.most_ms = max(self.most_ms, (time.perf_counter() - began) * 1_000)
            await asyncio.sleep(EVERY_S)
