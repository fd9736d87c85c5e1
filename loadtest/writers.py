"""Writers that cost little more than the kernel does: a C program, built here, that posts prepared requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import msgspec

from loadtest.build import build
from loadtest.targets import Target

STAMP = "SENT_NS_IS_PUT_HERE"
EVENT_BYTES = 200


class Posted(msgspec.Struct, frozen=True):
    """What became of the requests; times in ms, from when each was due to its answer."""

    answered: int
    refused: int
    seconds: float
    p50: float
    p99: float


def event_body(batch: int = 1) -> str:
    """Return an append of events that are about `EVENT_BYTES` long once they are stored."""
    event = json.dumps({"type": "message.delta", "data": {"content": "x" * 30, "sent_ns": STAMP}})
    return f'{{"events":[{",".join([event] * batch)}]}}'.replace(f'"{STAMP}"', STAMP)


def streamed_event(run_id: str, over: str) -> str:
    """Return the same event as a line, or as a command of a WebSocket (`frames`)."""
    event = event_body()[len('{"events":[') : -len("]}")]
    if over == "lines":
        return event
    return f'{{"type":"append","id":"1","run_id":"{run_id}","events":[{event}]}}'


def number_body() -> str:
    """Return the same for a peer that keeps what it is given."""
    return json.dumps({"content": "x" * 150, "sent_ns": STAMP}).replace(f'"{STAMP}"', STAMP)


async def post(
    target: Target,
    paths: Sequence[str],
    body: str,
    *,
    connections: int = 16,
    rate: float = 0,
    seconds: float = 600,
    count: int = 0,
) -> Posted:
    """Post `body` to the paths in turn: at a rate, or as fast as answers come; for a time, or so many times."""
    host, port = target.address
    headers = {"Host": "load", "Content-Type": "application/json", **target.headers}
    head = "\n".join(f"{name}: {value}" for name, value in headers.items())
    process = await asyncio.create_subprocess_exec(
        build("writer.c"),
        *[host, str(port), str(connections), str(rate), str(seconds), str(count)],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(("\n".join(paths) + "\n\n" + head + "\n\n" + body + "\0").encode())
    if process.returncode != 0:
        raise SystemExit("the writers ended early")
    return msgspec.json.decode(said, type=Posted)


async def stream(target: Target, run_id: str, *, over: str, rate: float, seconds: float) -> Posted:
    """Append to a run over one connection, as `lines` of a body or `frames` of a WebSocket; see `streamer.c`."""
    host, port = target.address
    if over == "lines":
        fields = {"Host": "load", "Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
        lines = [f"POST /v1/runs/{run_id}/events HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**fields, **target.headers}.items()]
        head = "\r\n".join(lines) + "\r\n\r\n"
    else:
        head = target.upgrade_request()
    process = await asyncio.create_subprocess_exec(
        build("streamer.c"),
        *[host, str(port), over, str(rate), str(seconds)],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(f"{head}\0{streamed_event(run_id, over)}\0".encode())
    if process.returncode != 0:
        raise SystemExit("the streamer ended early")
    return msgspec.json.decode(said, type=Posted)
