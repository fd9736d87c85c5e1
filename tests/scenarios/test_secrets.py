"""No secret is told to anybody but whom it belongs to: good ones and bad ones, by every way in."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.native import accepted
from tests.support.processes import GatewayProcess, serving
from tests.support.provider import ISSUER, Provider, run_provider
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio

PASSWORD = "horse-battery-of-the-store"
FETCHING = "token-in-the-address-of-keys"
SIGNING = "the-secret-that-signs-tickets-" * 2
WEBHOOK = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
TALKATIVE = {"log_level": "debug", "access_log": "all", "webhook_private": "allow", "webhook_http": "allow"}
LOG = {"type": "log", "data": {"level": "info", "message": "m"}}


def damaged(secret: str) -> Iterable[str]:
    """Yield a secret as it is, and as it is after common mistakes."""
    yield from (secret, secret[:-1], f"{secret} x", f'"{secret.swapcase()}"')


class Heard:
    """Everything that the gateway told of what went wrong."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def note(self, answer: httpx.Response) -> None:
        """Keep a refusal, with its headers."""
        if answer.status_code >= 400:
            await answer.aread()
            self.texts.append(f"{answer.status_code} {dict(answer.headers)} {answer.text}")


async def show_keys(client: httpx.AsyncClient, secret: str, run_id: str) -> None:
    """Show a key or token in every place where one may stand, and in some where it may not."""
    path = f"/v1/runs/{run_id}"
    for text in damaged(secret):
        for headers in (
            {"authorization": f"Bearer {text}"},
            {"authorization": f"Basic {text}"},
            {"authorization": text},
            {"x-api-key": text},
            {"x-api-key": text, "authorization": "Bearer other"},
            {"x-api-key": text, "content-encoding": "gzip"},
        ):
            await client.get(path, headers=headers)
            await client.post(f"{path}/events", headers=headers, content=b"{")
            await client.post(f"{path}/events", headers=headers, json=LOG)
            await client.get("/compat/threads/v1/runs", headers=headers)
            await client.get("/runs", headers=headers)


async def show_tickets(client: httpx.AsyncClient, gateway: GatewayProcess, secret: str, run_id: str) -> list[str]:
    """Show a ticket where one is honoured and where none is; return what WebSockets were told."""
    told = []
    for text in damaged(secret):
        for path in (f"/v1/runs/{run_id}/events", "/v1/stream", "/v1/runs", "/v1/nowhere", "/compat/jobs/v1/runs"):
            await client.get(path, params={"ticket": text})
            await client.get(path, params=[("ticket", text), ("ticket", "other")])
        told += await show_on_sockets(gateway, text)
    return told


async def show_on_sockets(gateway: GatewayProcess, text: str) -> list[str]:
    """Open WebSockets with a ticket, and renew one with it as a ticket, as a key, and as both."""
    told: list[str] = []
    url = f"ws://127.0.0.1:{gateway.port}/v1/ws"
    try:
        async with connect(f"{url}?{urlencode({'ticket': text})}", proxy=None) as socket:
            await socket.send('{"type":"ping"}')
            told.append(str(await asyncio.wait_for(socket.recv(), 10)))
    except (ConnectionClosed, InvalidStatus) as error:
        told.append(str(error))
    async with connect(url, additional_headers={"x-api-key": gateway.key}, proxy=None) as socket:
        shown: list[dict[str, Any]] = [{"ticket": text}, {"key": text}, {"key": text, "ticket": text}, {"keys": [text]}]
        for members in shown:
            await socket.send(json.dumps({"type": "auth", "id": "a", **members}))
            answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
            if answer["type"] == "error":
                told.append(json.dumps(answer))
    return told


async def give_webhook_secrets(client: httpx.AsyncClient) -> None:
    """Give a webhook's secret to runs and agents, well and wrongly."""
    for text in ("whsec_" + WEBHOOK, WEBHOOK, f"whsec_{WEBHOOK}!", f"whsec-{WEBHOOK}", f"whsec_{WEBHOOK * 20}"):
        hooks: list[Any] = [{"url": "http://127.0.0.1:9/x", "secret": text}, {"url": "not a url", "secret": text}]
        hooks += [
            {"url": "http://127.0.0.1:9/x", "secrets": text},
            {"secret": text},
            {"url": "http://h/", "secret": [text]},
        ]
        for hook in hooks:
            await client.post("/v1/runs", json={"agent_id": "a", "mode": "direct", "webhooks": [hook]})
            await client.put("/v1/agents/hooked", json={"webhooks": [hook]})
        # Torn bodies: what is wrong is told by its place, not by its text.
        await client.post("/v1/runs", content=b'{"webhooks":[{"secret":"' + text.encode() + b'"')


async def open_files(client: httpx.AsyncClient) -> str:
    """Open a file by its signed URL, changed in every part; return the signature."""
    stored = accepted(await client.post("/v1/files", params={"name": "a.txt"}, content=b"a"), 201)
    url = str(accepted(await client.get(f"/v1/files/{stored['file_id']}"))["url"])
    signature = url.rpartition("=")[2]
    for changed in (
        url,
        url + "x",
        url + "&x=1",
        url.replace("expires=", "expires=1"),
        url.replace("/files/", "/files/0"),
    ):
        await client.get(changed)
    return signature.rpartition(".")[2]


def examine(store_url: str, gateway: GatewayProcess) -> str:
    """Return what the doctor says of the store and of the gateway."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    said = ""
    for url, key in ((store_url, gateway.key), (store_url.replace("/store", "/stone"), gateway.key + "x")):
        program = [sys.executable, "-m", "gateway", "doctor", "--url", gateway.url, "--key", key, "--idle", "0"]
        ran = subprocess.run(
            program, env={**environ, "GATEWAY_REDIS_URL": url}, capture_output=True, text=True, timeout=120, check=False
        )
        said += ran.stdout + ran.stderr
    return said


async def use_tokens(provider: Provider, client: httpx.AsyncClient, run_id: str) -> dict[str, str]:
    """Show tokens that are good, over, meant for others, unsigned and torn; return them by name."""
    good = provider.sign(tenant="default")
    tokens = {"token": good, "token over": provider.sign(exp=1), "foreign token": provider.sign(aud="others")}
    for name, token in tokens.items():
        await show_keys(client, token, run_id)
        head, claims, _ = token.split(".")
        for text in (f"{head}.{claims}.", f"{head}.{claims}", f"e30.{claims}.e30", f"{head}.{claims}." + "A" * 9_000):
            await client.get("/v1/runs", headers={"authorization": f"Bearer {text}"})
        assert name
    return tokens


async def test_no_secret_is_told(tmp_path: Path, data_dir: Path) -> None:
    """Keys, tickets, tokens, signatures, webhooks' and the gateway's own secrets: in no line of its log, no refusal,
    no metric, and nothing that the doctor says."""
    store = RunningStore(data_dir.parent, user=f"gate on >{PASSWORD} ~* &* +@all")
    await asyncio.to_thread(store.start)
    heard = Heard()
    try:
        url = f"unix://gate:{PASSWORD}@{store.socket_path}"
        async with run_provider() as provider:
            settings = {**TALKATIVE, **provider.settings(jwt_jwks=f"{provider.url}?key={FETCHING}")}
            settings |= {"ticket_secret": SIGNING, "redis_url": url}
            async with serving(tmp_path / "data", **settings) as gateway, gateway.client() as client:
                client.event_hooks["response"].append(heard.note)
                run_id = accepted(await client.post("/v1/runs", json={"agent_id": "a", "mode": "direct"}), 201)["id"]
                key = accepted(await client.post("/v1/keys", json={"scopes": ["runs:read"]}), 201)["key"]
                bound = {"tenant": True, "single_use": True, "origin": "https://app.example"}
                tickets = [
                    accepted(await client.post("/v1/tickets", json=body), 201)["ticket"]
                    for body in ({"tenant": True}, bound)
                ]
                async with gateway.client(headers={}) as bare:
                    bare.event_hooks["response"].append(heard.note)
                    await show_keys(bare, key, run_id)
                    await show_keys(bare, gateway.key, run_id)
                    for ticket in tickets:
                        heard.texts += await show_tickets(bare, gateway, ticket, run_id)
                    provider.status = 500
                    tokens = await use_tokens(provider, bare, run_id)
                    provider.status = 200
                    await show_keys(bare, provider.sign(tenant="default"), run_id)
                await give_webhook_secrets(client)
                signature = await open_files(client)
                metrics = (await client.get("/metrics")).text
                doctor = await asyncio.to_thread(examine, url, gateway)
    finally:
        await asyncio.to_thread(store.stop)
    # The development key is shown at a start, on purpose: those lines have no time.
    logged = "\n".join(line for line in gateway.log.splitlines() if line[:4].isdigit())
    secrets = {"key": key, "development key": gateway.key, "webhook": WEBHOOK, "signature": signature, **tokens}
    secrets |= {"store": PASSWORD, "address of keys": FETCHING, "signing": SIGNING[:30]}
    secrets |= {"ticket": tickets[0], "bound ticket": tickets[1]}
    assert f"/v1/runs/{run_id}" in logged, "it is talkative"
    assert "store" in doctor
    assert "gateway_http_requests" in metrics
    assert len(heard.texts) > 100, "much was refused"
    assert ISSUER not in logged
    for place, text in (
        ("log", logged),
        ("refusals", "\n".join(heard.texts)),
        ("metrics", metrics),
        ("doctor", doctor),
    ):
        for name, secret in secrets.items():
            # Whatever is left of it once its ends are gone.
            for part in (secret[: len(secret) * 2 // 3], secret[len(secret) // 3 :], secret.swapcase()[4:]):
                assert len(part) > 6
                at = text.find(part)
                assert at < 0, (place, name, text[max(0, at - 300) : at + 100])
