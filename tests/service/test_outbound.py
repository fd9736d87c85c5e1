"""Posting to strangers' URLs: where they may lead is seen at the connection itself."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.responses import RedirectResponse, Response

from gateway.errors import InvalidBody
from gateway.service.outbound import ANSWER_BYTES, Outbound, UrlRules, check_url
from tests.support.receiver import Receiver, run_receiver

pytestmark = pytest.mark.anyio

REFUSE = UrlRules(allow_http=True)
ALLOW = UrlRules(allow_http=True, allow_private=True)


@pytest.fixture
async def receiver(anyio_backend: object) -> AsyncIterator[Receiver]:
    """A receiver."""
    async with run_receiver() as receiver:
        yield receiver


@asynccontextmanager
async def outbound(rules: UrlRules, *, timeout_s: float = 5.0) -> AsyncIterator[Outbound]:
    """Give a way out."""
    way = Outbound(rules, timeout_s=timeout_s, connections=4)
    try:
        yield way
    finally:
        await way.aclose()


PRIVATE_HOSTS = [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",
    "a.localhost",
]


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
async def test_no_connection_is_made_to_a_private_address(receiver: Receiver, host: str) -> None:
    """However it is spelled, by name too: what is looked at is the address that would be connected to."""
    async with outbound(REFUSE) as way:
        posted = await way.post(f"http://{host}:{receiver.port}/", [], b"{}")
    assert posted.status is None
    # A name under localhost need not be known to the resolver.
    assert posted.error == "address_refused" or host == "a.localhost"
    assert receiver.received == []


async def test_a_name_that_leads_to_a_private_address_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks public, and each time it is used: a second look-up cannot lead elsewhere."""
    looked_up: list[str] = []
    loop = asyncio.get_running_loop()
    genuine = loop.getaddrinfo

    class Rebinding:
        """The running loop, whose resolver knows one name, and another address for it each time."""

        def __getattr__(self, name: str) -> object:
            return getattr(loop, name)

        async def getaddrinfo(self, host: str, port: int, **about: int) -> object:
            if host != "public.example":
                return await genuine(host, port, **about)
            looked_up.append(host)
            address = "127.0.0.1" if len(looked_up) == 1 else "10.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("gateway.service.outbound.asyncio.get_running_loop", Rebinding)
    async with outbound(ALLOW) as way:
        posted = await way.post(f"http://public.example:{receiver.port}/", [], b"{}")
        # Looked up once, and connected to what was seen.
        assert (posted.status, looked_up) == (204, ["public.example"])
        assert receiver.received[0].headers["host"] == f"public.example:{receiver.port}"
    async with outbound(REFUSE) as way:
        looked_up.clear()
        refused = await way.post(f"http://public.example:{receiver.port}/", [], b"{}")
        assert (refused.error, looked_up) == ("address_refused", ["public.example"])
    assert len(receiver.received) == 1


async def test_a_url_that_was_taken_under_other_rules_is_not_posted_to(receiver: Receiver) -> None:
    """An operator who forbids http:// forbids it for the webhooks that are there, too."""
    async with outbound(UrlRules(allow_private=True)) as way:
        posted = await way.post(receiver.url, [], b"{}")
        fetched = await way.fetch(receiver.url, limit_bytes=100)
    assert (posted.status, posted.error) == (None, "address_refused")
    assert (fetched.status, fetched.error) == (None, "address_refused")
    assert receiver.received == []


async def test_a_redirect_is_an_answer_and_not_followed(receiver: Receiver) -> None:
    """It could lead anywhere."""
    receiver.answer = lambda _number, _got: RedirectResponse(receiver.url, 307)
    async with outbound(ALLOW) as way:
        assert (await way.post(receiver.url, [], b"{}")).status == 307
    assert len(receiver.received) == 1


async def test_a_long_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    """Its status is all that counts."""
    receiver.answer = lambda _number, _got: Response(b"x" * (ANSWER_BYTES * 20))
    async with outbound(ALLOW) as way:
        assert (await way.post(receiver.url, [], b"{}")).status == 200
        receiver.answer = lambda _number, _got: Response(status_code=204)
        assert (await way.post(receiver.url, [], b"{}")).status == 204


async def test_a_receiver_that_does_not_answer_times_out(receiver: Receiver) -> None:
    """And costs no more than that."""
    receiver.hold.clear()
    async with outbound(ALLOW, timeout_s=0.2) as way:
        posted = await way.post(receiver.url, [], b"{}")
    assert (posted.status, posted.error) == (None, "timeout")
    assert 200 <= posted.duration_ms < 5_000


async def test_what_is_no_receiver_is_told_apart(receiver: Receiver) -> None:
    """Nobody there, no such name, and no HTTP."""

    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"hello\r\n\r\n")
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as free:
        closed_port = free.getsockname()[1]
    server = await asyncio.start_server(mumble, "127.0.0.1", 0)
    mumbling_port = server.sockets[0].getsockname()[1]
    async with outbound(ALLOW) as way, server:
        assert (await way.post(f"http://127.0.0.1:{closed_port}/", [], b"")).error == "connect_failed"
        assert (await way.post("http://no-such-name.invalid/", [], b"")).error == "connect_failed"
        assert (await way.post(f"http://127.0.0.1:{mumbling_port}/", [], b"")).error == "not_http"
        assert (await way.post(f"https://127.0.0.1:{receiver.port}/", [], b"")).error == "connect_failed"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a key and a certificate of its own for the name localhost."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return key, certificate


async def test_a_certificate_is_checked_for_the_name_of_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the connection is made to an address; an unknown issuer is refused."""
    key, certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with outbound(ALLOW) as way:
            assert (await way.post(f"https://localhost:{port}/", [], b"{}")).error == "connect_failed"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with outbound(ALLOW) as way:
            assert (await way.post(f"https://localhost:{port}/", [], b"{}")).status == 204
            assert (await way.post(f"https://127.0.0.1:{port}/", [], b"{}")).error == "connect_failed"
    assert "localhost" in names


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.example/", "file:///etc/passwd", "gopher://a.example", "a.example", "//a.example", "", "https://"),
        *("https://user:pass@a.example/", "https://user@a.example/", "https://a.example/#part", "http://a.example/"),
        *("https://a.example:99999/", "https://a b/", "https://a.example/\n", "https://[::1", "https://" + "a" * 3000),
        *("https://127.0.0.1/", "https://localhost/", "https://2130706433/", "https://[::1]/", "https://10.0.0.1/"),
        *("https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://x.localhost/", "https://0x7f.1/"),
    ],
)
def test_a_url_that_can_never_be_posted_to_is_refused_at_once(url: str) -> None:
    """With the place where it stands, and without its credentials."""
    with pytest.raises(InvalidBody) as refused:
        check_url(url, UrlRules(), "$.webhooks[0].url")
    assert refused.value.facts["path"] == "$.webhooks[0].url"
    assert "pass" not in refused.value.detail or "passwd" in url


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example:8443/x?y=1", "https://1.1.1.1/", "https://é.example/"]
)
def test_a_url_of_the_public_internet_is_taken(url: str) -> None:
    """Where its name leads is seen later."""
    assert check_url(url, UrlRules(), "$") == url


def test_what_the_operator_allows_is_taken() -> None:
    """Plain HTTP and private addresses, each by its own setting."""
    assert check_url("http://a.example/", UrlRules(allow_http=True), "$")
    assert check_url("https://10.0.0.1/", UrlRules(allow_private=True), "$")
    assert check_url("http://localhost:1/", UrlRules(allow_http=True, allow_private=True), "$")
