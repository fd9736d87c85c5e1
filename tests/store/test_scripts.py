"""The Lua verbs: each says what it takes and gives, and works on a server that never saw it before."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import resources

import pytest

from gateway.domain.lifecycle import Status
from gateway.store import scripts
from gateway.store.link import Link
from gateway.store.scripts import Script, Word
from tests.support.links import Door, connect, make_spec
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio

LUA = {
    path.name.removesuffix(".lua"): path.read_text()
    for path in resources.files("gateway.store").joinpath("lua").iterdir()
    if path.name.endswith(".lua")
}
# What several verbs have in common; no verb itself.
SHARED = {"lanes", "writers"}


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection to the store."""
    async with connect(store.url) as link:
        yield link


def test_every_file_has_a_typed_door() -> None:
    """No verb without a `Script`, no `Script` without its file."""
    doors = [value for value in vars(scripts).values() if isinstance(value, Script)]
    assert len(doors) == len(LUA) - len(SHARED)


@pytest.mark.parametrize("name", LUA)
def test_every_file_says_what_it_takes_and_gives(name: str) -> None:
    """A sentence, KEYS, ARGV and RETURNS, before the first line of code."""
    header = LUA[name][: re.search(r"^[^-\n]", LUA[name], re.MULTILINE).start()]  # type: ignore[union-attr]
    parts = [r"-- KEYS  (1 |none|as lanes\.lua|its caller's)", "-- ARGV  1 ", r"-- RETURNS (\{'|one text)"]
    for part in parts[: 1 if name in SHARED else None]:
        assert re.search(part, header), name
    assert header.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", LUA)
def test_no_file_knows_a_status(name: str) -> None:
    """The state machine has one home; permitted statuses arrive as arguments."""
    code = "\n".join(line for line in LUA[name].splitlines() if not line.startswith("--"))
    for status in Status:
        assert f"'{status}'" not in code, status


@pytest.mark.parametrize("name", LUA)
def test_every_reply_begins_with_a_known_word(name: str) -> None:
    """And every key that a file touches came in KEYS."""
    code = "\n".join(line for line in LUA[name].splitlines() if not line.startswith("--"))
    for word in re.findall(r"return (?:\{|reply\()?'(\w+)[ ']", code):
        assert word in set(Word), word
    assert "gw:" not in code


async def test_a_server_that_lost_its_scripts_is_given_them_again(link: Link) -> None:
    """A restart of the store forgets them; no call fails for it."""
    door = Door(link, make_spec("scripts"))
    await link.call("SCRIPT", "FLUSH")
    await door.create()
    await link.call("SCRIPT", "FLUSH")
    assert (await door.append()).first_seq == 2
