"""Addresses: what looks like the public internet and is not is recognised in every spelling."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.addresses import is_local_name, is_public, parse_address

PRIVATE = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "192.0.0.8"),
    *("::1", "::", "fe80::1", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1", "2001:db8::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::1", "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::127.0.0.1", "::10.0.0.1"),
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_is_not_public_is_recognised(text: str) -> None:
    """Private, loopback, link-local, multicast, reserved, and IPv6 ones that carry such an IPv4 address."""
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_passes(text: str) -> None:
    """Also one that is carried by an IPv6 address."""
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text", ["2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001", "0177.0.0.1", "127.0.0.1.", "0x7F.0.0x1"]
)
def test_old_spellings_of_an_address_are_read(text: str) -> None:
    """Resolvers read them, so a check has to."""
    assert parse_address(text) == IPv4Address("127.0.0.1")


@pytest.mark.parametrize("text", ["example.com", "1.2.3.4.5", "256.1.1.1", "08.1.1.1", "a.1", "4294967296", "", "1..2"])
def test_what_is_no_address_is_a_name(text: str) -> None:
    """And is looked up where it is used."""
    assert parse_address(text) is None


def test_brackets_of_a_url_are_no_part_of_an_address() -> None:
    """An IPv6 host stands in them."""
    assert parse_address("[::1]") == ip_address("::1")


@given(st.from_regex(r"(0x[0-9a-f]{1,8}|[0-9]{1,10})(\.(0x[0-9a-f]{1,3}|[0-9]{1,4})){0,3}", fullmatch=True))
def test_old_spellings_are_read_as_the_system_reads_them(text: str) -> None:
    """Whatever `inet_aton` makes of a number is what is checked."""
    try:
        expected = IPv4Address(socket.inet_aton(text))
    except OSError:
        return
    assert parse_address(text) == expected


def test_names_of_this_machine_are_known() -> None:
    """Wherever they are looked up."""
    assert all(map(is_local_name, ("localhost", "LocalHost.", "api.localhost", "localhost.localdomain")))
    assert not any(map(is_local_name, ("localhost.example.com", "mylocalhost", "example.com")))
