"""The listening socket."""

from __future__ import annotations

import socket

import anyio
import pytest

from gateway.commands import listen

pytestmark = pytest.mark.anyio


async def test_port_0_takes_a_free_port_and_tells_it() -> None:
    """The address to print is the real one."""
    with await listen.listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        assert port != 0
        assert listen.format_url(sock) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            pass


async def test_a_taken_port_is_told_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the address, the reason and the way out."""
    monkeypatch.setattr(listen, "RELEASE_S", 0.0)
    with await listen.listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(listen.CannotListen) as refused:
            await listen.listen("127.0.0.1", port)
    assert refused.value.detail.startswith(f"Cannot listen on 127.0.0.1:{port}: Address already in use.")
    assert "GATEWAY_PORT" in refused.value.detail


async def test_a_port_that_is_being_let_go_is_waited_for() -> None:
    """The processes of a gateway that was killed may hold its port for another moment."""
    first = await listen.listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    async with anyio.create_task_group() as group:

        async def let_go() -> None:
            await anyio.sleep(listen.POLL_S)
            first.close()

        group.start_soon(let_go)
        with await listen.listen("127.0.0.1", port) as second:
            assert second.getsockname()[1] == port


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1"])
async def test_an_address_that_is_not_ours_is_refused_at_once(host: str) -> None:
    """A wrong address is not waited for."""
    with anyio.fail_after(listen.RELEASE_S * 5), pytest.raises(listen.CannotListen, match="Cannot listen on"):
        await listen.listen(host, 0)


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("localhost", True), ("127.8.9.10", True), ("0.0.0.0", False)]
)
async def test_only_a_loopback_address_counts_as_this_machine_s(host: str, loopback: bool) -> None:
    """The development key depends on it, so the bound address decides and not its name."""
    with await listen.listen(host, 0) as sock:
        assert listen.is_loopback(sock) is loopback


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_an_ipv6_address_gets_its_brackets() -> None:
    """The printed URL can be pasted."""
    try:
        sock = await listen.listen("::1", 0)
    except listen.CannotListen:
        pytest.skip("this machine has no IPv6 loopback")
    with sock:
        assert listen.is_loopback(sock)
        assert listen.format_url(sock).startswith("http://[::1]:")
