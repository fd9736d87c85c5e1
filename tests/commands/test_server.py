"""The server of a process: what `gateway serve` takes connections with."""

from __future__ import annotations

import pytest

from gateway.commands.server import DrainingServer, configure
from gateway.settings import Settings
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


async def test_its_connections_take_the_short_way_for_appends(api: RunningGateway) -> None:
    """They are made as the configuration says: an append is answered without the application."""
    config = configure(Settings(), api.gateway)
    config.load()
    server = DrainingServer(config, api.gateway, drain_s=0, connections=1)
    protocol = server.make_protocol()
    assert protocol.express is api.gateway.express
    assert protocol.courier is not None
