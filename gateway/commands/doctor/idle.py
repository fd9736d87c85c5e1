"""Whether connections on which nothing happens stay open."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gateway.commands.doctor.finding import Ward
from gateway.commands.doctor.upgrade import dial

FEED: Final = "/v1/feed"
CURE: Final = (
    "Raise the read timeout of what stands between above GATEWAY_KEEPALIVE_S; in nginx `proxy_read_timeout 75s`."
)


async def judge(ward: Ward, http: httpx.AsyncClient, url: str, key: str | None, *, idle_s: float) -> None:
    """Leave a stream and a WebSocket silent for `idle_s`, both at once."""
    if idle_s <= 0:
        ward.add("idle", "note", "Silent connections were not tried (--idle 0).")
    elif key is None:
        ward.add(
            "idle", "note", "Silent connections were not tried: that takes a key that may read.", "Give it with --key."
        )
    else:
        # One after the other in the report, whichever is first.
        stream, socket = Ward("gateway"), Ward("gateway")
        await asyncio.gather(
            _judge_stream(stream, http, key, idle_s=idle_s), _judge_socket(socket, url, key, idle_s=idle_s)
        )
        ward.findings += [*stream.findings, *socket.findings]


async def _judge_stream(ward: Ward, http: httpx.AsyncClient, key: str, *, idle_s: float) -> None:
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    began_s, signs = time.monotonic(), 0
    try:
        async with http.stream("GET", FEED, params={"after": "now"}, headers=headers, timeout=idle_s + 10) as answer:
            if answer.status_code != 200:
                said = f"A stream was refused with {answer.status_code}."
                ward.add("idle stream", "problem", said, "Give a key with the scope runs:read.")
                return
            async with asyncio.timeout(idle_s):
                async for text in answer.aiter_text():
                    signs += text.count(": ping")
    except TimeoutError:
        said = f"A stream stayed open for {idle_s:g} s; {signs} signs of life came."
        if signs:
            ward.add("idle stream", "good", said)
        else:
            ward.add("idle stream", "note", said, "Use an --idle longer than GATEWAY_KEEPALIVE_S (15 s).")
        return
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
    else:
        reason = "it ended"
    lived_s = time.monotonic() - began_s
    ward.add("idle stream", "problem", f"A silent stream was cut after {lived_s:.1f} s: {reason}.", CURE)


async def _judge_socket(ward: Ward, url: str, key: str, *, idle_s: float) -> None:
    began_s = time.monotonic()
    try:
        async with dial(url, key) as socket, asyncio.timeout(idle_s):
            while True:
                await socket.recv()
    except TimeoutError:
        ward.add("idle WebSocket", "good", f"A WebSocket stayed open for {idle_s:g} s.")
    except ConnectionClosed as error:
        lived_s = time.monotonic() - began_s
        ward.add("idle WebSocket", "problem", f"A silent WebSocket was cut after {lived_s:.1f} s: {error}.", CURE)
    except (InvalidHandshake, OSError):
        # Why it does not open has been said.
        ward.add("idle WebSocket", "note", "A silent WebSocket was not tried: none opens.")
