"""How the console's files are served."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

FILES = ("", "app.js", "run.js", "vendor/preact.js", "console.css", "icon.svg")


@pytest.mark.parametrize("path", ["/", "/console"])
async def test_every_short_address_leads_to_the_console(gateway: RunningGateway, path: str) -> None:
    """A person who types the bare address lands on the page."""
    answer = await gateway.client.get(path, follow_redirects=True)
    assert (answer.url.path, answer.status_code) == ("/console/", 200)
    assert "<title>Runs</title>" in answer.text


@pytest.mark.parametrize("name", FILES)
async def test_files_carry_the_headers_of_a_page_that_shows_strangers_text(gateway: RunningGateway, name: str) -> None:
    """Nothing from elsewhere, nothing inline, no framing, no guessing of types, no referrer."""
    answer = await gateway.client.get(f"/console/{name}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
async def test_files_are_asked_for_again_but_not_sent_again(gateway: RunningGateway, name: str) -> None:
    """A browser keeps them, validates each by its ETag, and gets 304 while it is the same."""
    first = await gateway.client.get(f"/console/{name}")
    assert first.headers["cache-control"] == "no-cache"
    again = await gateway.client.get(f"/console/{name}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("", "text/html"), ("app.js", "javascript"), ("console.css", "text/css"), ("icon.svg", "image/svg+xml")],
)
async def test_files_have_the_types_that_browsers_insist_on(gateway: RunningGateway, name: str, kind: str) -> None:
    """With nosniff a module of any other type is not run."""
    assert kind in (await gateway.client.get(f"/console/{name}")).headers["content-type"]


async def test_the_page_names_nothing_outside_and_nothing_inline(gateway: RunningGateway) -> None:
    """It works where only the gateway is reachable, and under its own policy."""
    text = (await gateway.client.get("/console/")).text
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=|javascript:", text)


@pytest.mark.parametrize("path", ["/console/nothing.js", "/console/../settings.py", "/console/%2e%2e/__init__.py"])
async def test_only_the_consoles_own_files_are_served(gateway: RunningGateway, path: str) -> None:
    """What is not in the folder is not there."""
    assert (await gateway.client.get(path)).status_code == 404


async def test_every_import_leads_to_a_file_beside_it(gateway: RunningGateway) -> None:
    """The vendored libraries name no package and no other server, and each has its licence."""
    folder = resources.files("gateway.console").joinpath("static")
    for file in (*folder.iterdir(), *folder.joinpath("vendor").iterdir()):
        if file.name.endswith(".js"):
            named = re.findall(r"""(?:from|import)\s*["']([^"']+)["']""", file.read_text("utf-8"))
            assert all(re.fullmatch(r"\.{1,2}/(?:vendor/)?[a-z-]+\.js", name) for name in named), (file.name, named)
            assert "sourceMappingURL" not in file.read_text("utf-8")
    licences = [file.name for file in folder.joinpath("vendor").iterdir() if file.name.startswith("LICENSE")]
    assert len(licences) == 3
