"""An identity provider: keys, the set that it publishes, and tokens signed with them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from starlette.responses import Response

from gateway.service.tokens import REGISTRY
from tests.support.receiver import Receiver, run_receiver

ISSUER = "https://login.example"
AUDIENCE = "run-gateway"


class Provider:
    """Publishes `keys` at `receiver`, and signs with the one that a token names; `status` is what it answers."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.keys: dict[str, RSAKey | ECKey | OKPKey] = {"one": RSAKey.generate_key(2048, {"kid": "one"})}
        self.status = 200
        receiver.answer = lambda _number, _got: Response(self.published(), self.status)

    @property
    def url(self) -> str:
        """Where its keys are."""
        return f"http://127.0.0.1:{self.receiver.port}/jwks.json"

    @property
    def asked(self) -> int:
        """How often somebody asked for its keys."""
        return len(self.receiver.received)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a gateway that takes its tokens."""
        chosen = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": self.url}
        return {**chosen, "jwt_http": "allow", "jwt_private": "allow", **changes}

    def published(self) -> bytes:
        """Return its key set, without the private parts."""
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys.values()]}).encode()

    def sign(self, *, kid: str = "one", alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token that is good for a minute, but for `claims` (None takes one away)."""
        now_s = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now_s + 60, "iat": now_s, "tenant": "acme"}
        said |= {"scope": "runs:read runs:write", **claims}
        kept = {name: value for name, value in said.items() if value is not None}
        return str(jwt.encode({"alg": alg, "kid": kid, **(header or {})}, kept, self.keys[kid], registry=REGISTRY))


@asynccontextmanager
async def run_provider() -> AsyncIterator[Provider]:
    """Serve a provider on a free port."""
    async with run_receiver() as receiver:
        yield Provider(receiver)


@contextmanager
def changed(provider: Provider, **keys: RSAKey | ECKey | OKPKey) -> Iterator[None]:
    """Have the provider publish other keys for a while."""
    before, provider.keys = provider.keys, keys
    try:
        yield
    finally:
        provider.keys = before
