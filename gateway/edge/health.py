"""Whether this process lives, whether it should be sent requests, and what it counts."""

from __future__ import annotations

import os
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.edge.problems import describe_status, request_id_of, respond


def health_routes(why_not_ready: Callable[[], list[str]]) -> list[Route]:
    """Return `/healthz` (the process answers), `/readyz` (send it requests) and `/metrics`.

    Args:
        why_not_ready: reasons for people, none when ready; called for each `/readyz`, so it must not wait.
    """

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        reasons = why_not_ready()
        if reasons:
            detail = f"Not ready: {'; '.join(reasons)}."
            request_id = request_id_of(request.scope)
            problem = describe_status(503, "not_ready", detail, request_id, {"reasons": reasons})
            return respond(problem, {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


async def metrics(request: Request) -> Response:
    """Answer with the metrics of this process, or of all that share `PROMETHEUS_MULTIPROC_DIR`."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_registry()), headers={"content-type": content_type})


def _registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
