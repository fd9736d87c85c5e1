"""A gateway as the kit sees it: a URL and a key."""

from __future__ import annotations

import httpx
import msgspec


class Address(msgspec.Struct, frozen=True):
    """Where a gateway is reached, and with which key."""

    url: str
    key: str

    def client(self, timeout_s: float) -> httpx.AsyncClient:
        """Return an HTTP client with its key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s)
