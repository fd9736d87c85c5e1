"""What a gateway prints when it serves can be pasted."""

from __future__ import annotations

import re
import subprocess

import pytest

from gateway.commands.welcome import welcome
from gateway.settings import load

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize("dev_key", ["gwk_dev", "it's-$HOME", None])
def test_the_stream_command_sends_the_key(dev_key: str | None) -> None:
    """The development key as it is, else the one of GATEWAY_KEY, which the shell puts in."""
    (command,) = re.findall(r"^  stream  curl (.*)$", welcome(load({}), URL, dev_key), re.MULTILINE)
    environ = {"PATH": "/usr/bin:/bin", "GATEWAY_KEY": "gwk_stored"}
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], env=environ, stdout=subprocess.PIPE, check=True)
    assert f"Authorization: Bearer {dev_key or 'gwk_stored'}" in shown.stdout.decode().splitlines()
