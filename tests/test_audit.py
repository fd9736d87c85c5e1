"""The audit of what is pinned: it finds what is known, and never takes silence for good news."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.audit import KNOWN_BAD, KNOWN_BAD_SCRIPT, ROOT, Library, vendored
from tests.support.receiver import Received, run_receiver

pytestmark = pytest.mark.anyio

TABLE = "| file | package | version | licence |\n|---|---|---|---|\n| `a.js` | @a/one, two | 1.0.0, 2.0.0 | MIT |\n"
CANARIES = {("PyPI", *KNOWN_BAD), ("npm", *KNOWN_BAD_SCRIPT)}


def advise(*bad: tuple[str, str, str]) -> Any:
    """Return what an OSV service answers that knows of something against these (ecosystem, name, version)."""

    def answer(_number: int, got: Received) -> Response:
        asked = json.loads(got.body)
        known = (asked["package"]["ecosystem"], asked["package"]["name"], asked["version"])
        advisory = {"id": f"X-{known[1]}", "summary": "It breaks.", "modified": "2026-01-01T00:00:00Z", "affected": []}
        return JSONResponse({"vulns": [advisory]} if known in bad else {})

    return answer


async def audit(folder: Path, osv_url: str) -> tuple[int, str]:
    """Return how an audit of two pins and two vendored libraries ended, and all that it said."""
    (folder / "pins.txt").write_text("anyio==4.0.0\nclick==8.0.0\n")
    (folder / "table.md").write_text(TABLE)
    places = ["--pins", str(folder / "pins.txt"), "--table", str(folder / "table.md")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.audit", *places, "--osv", osv_url, "--only-osv"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_what_is_known_fails_the_audit(tmp_path: Path) -> None:
    """Of Python's and of the console's libraries; each finding is named."""
    async with run_receiver() as service:
        service.answer = advise(*CANARIES, ("PyPI", "click", "8.0.0"), ("npm", "two", "2.0.0"))
        status, told = await audit(tmp_path, f"http://127.0.0.1:{service.port}/v1/query")
    assert status == 1
    assert "click 8.0.0: X-click" in told
    assert "two 2.0.0: X-two" in told
    assert "anyio 4.0.0" not in told
    assert "NOTHING" not in told


async def test_an_audit_that_finds_nothing_says_what_was_audited(tmp_path: Path) -> None:
    """By a service that is known to know something."""
    async with run_receiver() as service:
        service.answer = advise(*CANARIES)
        status, told = await audit(tmp_path, f"http://127.0.0.1:{service.port}/v1/query")
    assert status == 0
    assert "pins.txt: audited, 0 found." in told
    assert "@a/one 1.0.0, two 2.0.0: audited, 0 found." in told
    assert "NOTHING" not in told


@pytest.mark.parametrize("answer", [advise(), lambda *_: Response("lost", 404), lambda *_: Response("<html>")])
async def test_a_service_that_knows_nothing_audits_nothing(tmp_path: Path, answer: Any) -> None:
    """A mirror that answers and has no advisories is no good news: it is said, and fails nothing."""
    async with run_receiver() as service:
        service.answer = answer
        status, told = await audit(tmp_path, f"http://127.0.0.1:{service.port}/v1/query")
    assert status == 0
    assert told.count("NOTHING WAS AUDITED") == 2


async def test_no_service_audits_nothing(tmp_path: Path) -> None:
    """Nor does one that cannot be reached."""
    status, told = await audit(tmp_path, "http://127.0.0.1:9/v1/query")
    assert status == 0
    assert told.count("NOTHING WAS AUDITED") == 2


def test_every_vendored_library_is_audited() -> None:
    """The table that is read names them all."""
    table = (ROOT / "gateway/console/static/vendor/README.md").read_text("utf-8")
    found = list(vendored(table))
    names = {library.name for library in found}
    assert names == {"preact", "@preact/signals", "@preact/signals-core", "htm"}
    assert all(isinstance(library, Library) and library.version[0].isdigit() for library in found)
