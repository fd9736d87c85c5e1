"""The development key: one key with every right, for a gateway that only its own machine can reach."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError
from gateway.store.data_dir import DataDirUnusable

FILE: Final = "dev.key"
OTHERS: Final = 0o077


class NoKeys(GatewayError):
    """There is no key for those who need one: others that reach the gateway, or its demo agent."""

    code = "no_keys"


def choose_key(data_dir: Path, *, fixed: str | None, loopback: bool, stored_keys: int) -> str | None:
    """Return the development key, None where stored keys rule.

    Args:
        data_dir: Where a key that is made is kept, readable for its owner only.
        fixed: The key that was configured; it is honoured on loopback only.
        loopback: Whether only this machine can reach the gateway.
        stored_keys: How many keys work already.

    Raises:
        NoKeys: others can reach the gateway, and nobody has a key.
        DataDirUnusable: the key cannot be kept.
    """
    if not loopback:
        if stored_keys == 0:
            raise NoKeys(
                "Other machines can reach this address and no key is stored: "
                "make one with `gateway keys create`, with the same GATEWAY_DATA_DIR or GATEWAY_REDIS_URL, "
                "or listen on 127.0.0.1."
            )
        return None
    if fixed is None and stored_keys > 0:
        return None
    kept = _read(data_dir / FILE)
    key = fixed or kept or f"gwk_{secrets.token_urlsafe(32)}"
    # What stands there already needs no room on a full disk.
    if key != kept or (data_dir / FILE).stat().st_mode & OTHERS:
        _write(data_dir / FILE, key)
    return key


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _write(path: Path, key: str) -> None:
    new = path.with_suffix(".key.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{key}\n")
        new.replace(path)
    except OSError as error:
        raise DataDirUnusable(f"The development key cannot be kept in {path}: {error.strerror}.") from error
