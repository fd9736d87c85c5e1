"""How the browser's client is served."""

from __future__ import annotations

import gzip

import pytest

from gateway.edge.scripts import tighten
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

LIMIT_BYTES = 8 * 1024


async def test_the_client_is_under_eight_kibibytes_compressed(gateway: RunningGateway) -> None:
    """One request and a handful of packets: what is sent, as it is sent."""
    async with gateway.client.stream("GET", "/client.js", headers={"Accept-Encoding": "gzip"}) as answer:
        sent = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert "javascript" in answer.headers["content-type"]
    assert len(sent) < LIMIT_BYTES
    plain = await gateway.client.get("/client.js", headers={"Accept-Encoding": "identity"})
    assert gzip.decompress(sent) == plain.content
    assert b"import " not in plain.content


@pytest.mark.parametrize("name", ["client.js", "client.d.ts", "client-react.js", "client-react.d.ts"])
async def test_pages_of_other_origins_may_load_it_and_keep_it(gateway: RunningGateway, name: str) -> None:
    """The files are anybody's, and asked for again without being sent again."""
    first = await gateway.client.get(f"/{name}")
    assert first.status_code == 200
    assert first.headers["access-control-allow-origin"] == "*"
    assert first.headers["cross-origin-resource-policy"] == "cross-origin"
    assert first.headers["x-content-type-options"] == "nosniff"
    again = await gateway.client.get(f"/{name}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_tightening_leaves_strings_as_they_are() -> None:
    """Only what is idle goes: comments on lines of their own, and space around punctuation."""
    source = '// gone\n/** gone */\nconst a = [\n  "x , y",\n  `p : ${q}`,\n];\nfor (;;) { b( a, 1 ); }\n'
    assert tighten(source) == 'const a=["x , y",`p : ${q}`];for(;;){b(a,1);}'
