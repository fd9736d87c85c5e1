"""What `gateway serve` says when it serves: all that a newcomer has to know to see something live."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from gateway.client import find_key, find_url
from gateway.settings import Settings


def welcome(settings: Settings, url: str, dev_key: str | None) -> str:
    """Return the address, the development key if there is one, and three commands to try."""
    store = "that of GATEWAY_REDIS_URL" if settings.redis_url else f"embedded, in {settings.data_dir}"
    lines = [f"gateway on {url}", f"  store   {store}"]
    if dev_key is not None:
        lines.append(f"  key     {dev_key}  (for development, on this machine only)")
    else:
        lines.append("  keys    those that are stored (`gateway keys list`): give yours as GATEWAY_KEY")
    fragment = f"#key={dev_key}" if dev_key is not None else ""
    # Only within double quotes does a shell put in the variable.
    authorization = '"Authorization: Bearer $GATEWAY_KEY"'
    if dev_key is not None:
        authorization = shlex.quote(f"Authorization: Bearer {dev_key}")
    lines += [
        "try",
        f"  watch   {url}/console/{fragment}",
        f"  stream  curl -N -H {authorization} {url}/v1/feed",
        f"  run     {find_own_command()} exec {_reach(url, dev_key)}-- ls -l",
    ]
    return "\n".join(lines)


def _reach(url: str, dev_key: str | None) -> str:
    """Return the options without which a command started here would not find this gateway."""
    options = f"--url {url} " if find_url(os.environ) != url else ""
    known = dev_key is None or find_key(os.environ, Path.cwd()) == dev_key
    return options if known else f"{options}--key {dev_key} "


def find_own_command() -> str:
    """Return how this command line is called from a shell in this directory."""
    beside = Path(sys.executable).with_name("gateway")
    if shutil.which("gateway") == str(beside):
        return "gateway"
    if beside.exists():
        return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
    return f"{sys.executable} -m gateway"
