"""The page of the dialects is executed: its commands run as they stand, with what they take from the shell."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.support.native import accepted
from tests.support.processes import serving

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
STRICT = 'curl() { command curl --fail-with-body --silent --show-error "$@"; }\n'


async def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    """Each is answered with JSON and no refusal."""
    async with serving(tmp_path / "data") as process, process.client() as client:
        run = accepted(await client.post("/v1/runs", json={"agent_id": "a", "mode": "direct"}), 201)
        environ = {"PATH": "/usr/bin:/bin", "URL": process.url, "KEY": process.key, "ID": run["id"]}
        answers = [await run_shell(STRICT + block, environ) for block in BLOCKS]
    assert len(answers) >= 3
    assert all(json.loads(answer) is not None for answer in answers)


async def run_shell(code: str, environ: dict[str, str]) -> str:
    """Return what a block prints; it must not fail."""
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", code, env=environ, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(shell.communicate(), 60)
    assert shell.returncode == 0, (code, output.decode())
    return output.decode()
