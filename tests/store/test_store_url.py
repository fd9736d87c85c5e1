"""The forms of a store's URL."""

from __future__ import annotations

import pytest

from gateway.settings import SettingsError, load
from gateway.store.store_url import Kind, read_url


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    """Each is reached with the same user and options; a port that is not said is the usual one."""
    store = read_url("rediss+cluster://runs:p%40ss@one:7000,two,[::1]:7002?ssl_ca_certs=/etc/ca.pem")
    assert (store.kind, store.hosts) == (Kind.CLUSTER, ("one:7000", "two:6379", "[::1]:7002"))
    assert store.node("two:6379") == "rediss://runs:p%40ss@two:6379/?ssl_ca_certs=%2Fetc%2Fca.pem"


def test_sentinels_have_their_own_credentials() -> None:
    """Those of the store are not shown to them, and theirs not to the store."""
    store = read_url("redis+sentinel://:secret@s1,s2:26380/runs/2?sentinel_password=other")
    assert (store.kind, store.hosts, store.service) == (Kind.SENTINEL, ("s1:26379", "s2:26380"), "runs")
    assert store.node("10.0.0.1:6379") == "redis://:secret@10.0.0.1:6379/2"
    assert store.sentinel("s1:26379") == "redis://:other@s1:26379/"
    quoted = read_url("redis+sentinel://s1/runs?sentinel_username=a%40b&sentinel_password=p%2Fq%2541")
    assert quoted.sentinel("s1:26379") == "redis://a%40b:p%2Fq%2541@s1:26379/"


@pytest.mark.parametrize("url", ["redis://store:6379/1", "unix:///run/store.sock", "rediss://a@b"])
def test_one_server_is_one_server(url: str) -> None:
    """Its URL stays as it is."""
    assert read_url(url).kind is Kind.SERVER


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://one:7000,two:7000",
        "redis+cluster://one:7000/",
        "rediss+cluster://user:secret@one?ssl_cert_reqs=none",
        "redis+sentinel://one,two,three/runs",
        "rediss+sentinel://user:secret@one/runs/3?ssl_ca_certs=/ca.pem",
    ],
)
def test_each_form_is_a_setting(url: str) -> None:
    """And is understood as what it says."""
    assert load({"GATEWAY_REDIS_URL": url}).redis_url == url
    assert read_url(url).kind is not Kind.SERVER


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one,two",
        "redis+sentinel://one/",
        "redis+cluster://",
        "redis+cluster://one/3",
        "unix+cluster://x",
    ],
)
def test_a_form_that_cannot_be_meant_is_refused(url: str) -> None:
    """Sentinels are asked for a service; a cluster has one database."""
    with pytest.raises(SettingsError):
        load({"GATEWAY_REDIS_URL": url})
