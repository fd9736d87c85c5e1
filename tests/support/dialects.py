"""Dialects as their tests speak them: refusals checked whole, clients of a seed's base address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.domain.access import SCOPES, Principal
from tests.support.running import RunningGateway

ALICE = Principal(id="usr_alice", name="alice", email="alice@example.com")


@asynccontextmanager
async def as_alice(api: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the key of somebody who has a name and an address."""
    key, _ = await api.gateway.access.create_key(
        tenant=api.tenant,
        name="alice's key",
        principal=ALICE,
        scopes=SCOPES,
        agents=None,
        now_ms=api.gateway.clock.now_ms(),
    )
    async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {key}"}, timeout=20) as client:
        yield client


def got(answer: httpx.Response, status: int = 200) -> Any:
    """Return the JSON body of an answer that must have this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()
