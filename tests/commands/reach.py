"""Commands as a shell runs them, pointed at a gateway."""

from __future__ import annotations

import os
from typing import Protocol


class Reachable(Protocol):
    """A running gateway."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def key(self) -> str:
        """A key of it."""
        ...


def environment(gateway: Reachable) -> dict[str, str]:
    """Return the environment of a command that is to find `gateway`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**clean, "GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.key}
