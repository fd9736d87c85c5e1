"""Whether what stands between here and a running gateway lets everything through, as it comes."""

from __future__ import annotations

import ipaddress
import uuid
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import httpx

from gateway.commands.doctor import idle, upgrade
from gateway.commands.doctor.finding import Finding, Ward
from gateway.commands.doctor.timed import Arrivals, time_body, time_stream
from gateway.settings import KIB, MIB

TIMEOUT_S: Final = 10.0
BODY_BYTES: Final = MIB + 64 * KIB
NGINX: Final = "nginx"


async def judge_way(url: str, key: str | None, *, idle_s: float) -> list[Finding]:
    """Return what is to be said of the way to the gateway at `url`.

    Args:
        key: Some checks need one; without it they are told as not made.
        idle_s: How long connections are left silent.
    """
    ward = Ward("gateway")
    # The way that is judged is the one to `url`, not one through a proxy of this machine's environment.
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http:
        if not await _judge_answers(ward, http):
            return ward.findings
        arrivals = await _judge_stream(ward, http, key)
        if arrivals is not None:
            _judge_transport(ward, url, arrivals)
            await _judge_body(ward, http)
        if key is not None and not await _judge_key(ward, http, key):
            key = None
        await upgrade.judge(ward, url, key)
        await idle.judge(ward, http, url, key, idle_s=idle_s)
    return ward.findings


async def _judge_answers(ward: Ward, http: httpx.AsyncClient) -> bool:
    try:
        alive = await http.get("/healthz")
    except httpx.HTTPError as error:
        said = f"Nothing answers at {http.base_url}: {error or type(error).__name__}."
        ward.add("answers", "problem", said, "Is `gateway serve` running, and the address right?")
        return False
    if alive.status_code != 200:
        ward.add(
            "answers", "note", f"/healthz is answered with {alive.status_code} here; /v1 may be all that is passed on."
        )
        return True
    ready = await http.get("/readyz")
    if ready.status_code != 200:
        said = f"The gateway answers, and is not ready: {_detail(ready)}"
        ward.add("answers", "problem", said, "Wait, or look at its log.")
    else:
        ward.add("answers", "good", "The gateway answers, and is ready.")
    return True


async def _judge_key(ward: Ward, http: httpx.AsyncClient, key: str) -> bool:
    """Ask for something with the key; False when it opens nothing, so that no more is tried with it."""
    try:
        answer = await http.get("/v1/runs", params={"limit": 1}, headers={"authorization": f"Bearer {key}"})
    except (httpx.HTTPError, UnicodeEncodeError) as error:
        ward.add("key", "problem", f"The key could not be tried: {error or type(error).__name__}.", "Is it whole?")
        return False
    if answer.status_code == 200:
        ward.add("key", "good", "The key is taken.")
        return True
    if answer.status_code == 403:
        cure = "Give one with the scope runs:read to have silent connections tried."
        ward.add("key", "note", "The key is taken, and may not read runs.", cure)
        return False
    if answer.status_code == 401:
        cure = "`gateway keys list` tells which there are; `gateway keys create` makes one, and shows it once."
        ward.add("key", "problem", f"The key is not taken: {_detail(answer)}", cure)
        return False
    ward.add("key", "problem", f"With the key, runs are answered with {answer.status_code}: {_detail(answer)}")
    return False


def _detail(answer: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(answer.json()["detail"])
    return answer.text[:200]


async def _judge_stream(ward: Ward, http: httpx.AsyncClient, key: str | None) -> Arrivals | None:
    request_id = uuid.uuid4().hex
    sent = {"last-event-id": "1", "idempotency-key": "doctor", "lease": "none", "x-request-id": request_id}
    sent |= {"traceparent": f"00-{request_id}-{request_id[:16]}-00", "authorization": f"Bearer {key or 'none'}"}
    sent["x-api-key"] = sent["authorization"].removeprefix("Bearer ")
    try:
        arrivals = await time_stream(http, sent)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        said = f"The probe of streams failed: {error or type(error).__name__}."
        ward.add("buffering", "problem", said, "Pass /v1/probe on to the gateway, as everything below /v1.")
        return None
    _judge_buffering(ward, arrivals)
    lost = sorted(sent.keys() - set(arrivals.facts["headers"]))
    if lost:
        ward.add("headers", "problem", f"Request headers do not get through: {', '.join(lost)}.", "Pass them on.")
    elif arrivals.headers.get("x-request-id") != request_id:
        ward.add(
            "headers", "warning", "The answer's X-Request-Id is not the request's.", "Pass X-Request-Id both ways."
        )
    else:
        ward.add("headers", "good", "Request headers get through, and the request id comes back.")
    return arrivals


def _judge_buffering(ward: Ward, arrivals: Arrivals) -> None:
    coding = arrivals.headers.get("content-encoding")
    if coding:
        said = (
            f"Something between here and the gateway compresses streams ({coding}): events wait for its buffer to fill."
        )
        ward.add(
            "compression", "problem" if arrivals.are_held else "warning", said, "Take text/event-stream out of it."
        )
    else:
        ward.add("compression", "good", "Nothing on the way compresses streams.")
    if not arrivals.are_held:
        ward.add(
            "buffering", "good", f"Bytes come as they are sent; the first after {arrivals.first_s * 1_000:.0f} ms."
        )
        return
    said = f"Something between here and the gateway buffers: the first byte came after {arrivals.first_s:.1f} s, "
    said += f"{arrivals.held_s:.1f} s late."
    cure = "Switch off its buffering of answers for /v1; in nginx set `proxy_buffering off` and `gzip off`, "
    cure += "and do not ignore X-Accel-Buffering."
    ward.add("buffering", "problem", said, cure)


def _judge_transport(ward: Ward, url: str, arrivals: Arrivals) -> None:
    between = [f"{name}: {arrivals.headers[name]}" for name in ("server", "via") if name in arrivals.headers]
    ward.add("proxy", "note", f"On the way stands {'; '.join(between)}." if between else "No proxy gives its name.")
    kind = arrivals.headers.get("content-type", "nothing")
    if not kind.startswith("text/event-stream"):
        ward.add("content type", "problem", f"A stream arrives as {kind}: browsers refuse it.", "Let it be.")
    if arrivals.facts["http_version"] == "1.0":
        cure = 'In nginx set `proxy_http_version 1.1` and `proxy_set_header Connection ""`.'
        said = "The proxy speaks HTTP/1.0 to the gateway: to a client a stream that is cut looks like one that ended."
        ward.add("HTTP version", "problem", said, cure)
    else:
        said = f"{arrivals.http_version} from here, HTTP/{arrivals.facts['http_version']} at the gateway."
        ward.add("HTTP version", "good", said)
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_near(parts.hostname or ""):
        ward.add("TLS", "warning", "Keys and runs travel in clear text.", "Put TLS before the gateway.")


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _judge_body(ward: Ward, http: httpx.AsyncClient) -> None:
    try:
        answer, took_s = await time_body(http, BODY_BYTES)
    except httpx.HTTPError as error:
        # A proxy that refuses a body may close before it has read it.
        said = f"A body of {BODY_BYTES // KIB:,} KiB does not get through: {error or type(error).__name__}."
        ward.add("bodies", "problem", said, "Allow larger ones; in nginx set `client_max_body_size`.")
        return
    if answer.status_code != 200:
        said = f"A body of {BODY_BYTES // KIB:,} KiB is answered with {answer.status_code}."
        ward.add("bodies", "problem", said, "Allow larger ones; in nginx set `client_max_body_size`.")
    elif answer.json()["took_ms"] < took_s * 500:
        said = (
            "Something on the way keeps request bodies until they are whole: appends over one long request come late."
        )
        ward.add("bodies", "warning", said, "In nginx set `proxy_request_buffering off`.")
    else:
        ward.add("bodies", "good", f"Bodies of {BODY_BYTES // KIB:,} KiB get through, as they are sent.")
