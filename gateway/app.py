"""The composition root: builds every part from the settings, wires them, starts and drains them."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from gateway import measures
from gateway.dialects.native.routes import BUSY_PATHS, express
from gateway.dialects.native.routes import routes as native_routes
from gateway.dialects.native.routes import streams as native_streams
from gateway.edge.console import console_routes
from gateway.edge.health import health_routes
from gateway.edge.limits import Limits
from gateway.edge.origins import SocketOrigins
from gateway.edge.probe import Probe
from gateway.edge.problems import IdentifiedRequests, exception_handlers
from gateway.edge.shortcut import Shortcut
from gateway.entry.asyncapi import document as asyncapi
from gateway.entry.callers import Callers
from gateway.entry.dialect import Dialect
from gateway.entry.files import FileDoor
from gateway.entry.places import Places
from gateway.entry.reference import document_route
from gateway.entry.services import Services
from gateway.entry.streaming import SseDoor
from gateway.errors import StoreUnavailable
from gateway.hub.hub import Hub
from gateway.hub.tail import Tail
from gateway.measures import in_ms
from gateway.parts import Engine, Stores, build_control, build_engine, build_files, open_stores
from gateway.service.access import Access
from gateway.service.batches import Batches
from gateway.service.bells import Bells
from gateway.service.bulk import Bulk
from gateway.service.deliveries import KIND as DELIVERIES
from gateway.service.deliveries import Deliveries
from gateway.service.depths import Depths
from gateway.service.file_sweep import FileSweep
from gateway.service.folds import Folds
from gateway.service.listing import Listing
from gateway.service.outbound import Outbound, check_url
from gateway.service.provider_keys import ProviderKeys
from gateway.service.readers import Readers
from gateway.service.schedules import Schedules
from gateway.service.streams import Streams, Watch
from gateway.service.ticks import KIND as TICKS
from gateway.service.ticks import Ticks
from gateway.service.timers import Looker, Timers
from gateway.service.tokens import Tokens
from gateway.service.webhooks import Webhooks
from gateway.service.work import Work
from gateway.settings import Settings, variable
from gateway.store import keys
from gateway.store.access import AccessStore
from gateway.store.clock import StoreClock
from gateway.store.links import open_link
from gateway.store.log import LogReader
from gateway.vitals import Vitals

logger = logging.getLogger(__name__)

DIALECTS: tuple[str, ...] = (
    "agents",
    "jobs",
    "threads",
    "interrupts",
    "processes",
)
"""The systems that are spoken beside the native API, each the name of its folder in `dialects/`."""

CLOSED_POLL_S = 0.01

RESTART_S = 0.5

PROVIDER_S = 5.0
"""Longest wait for the identity provider's keys."""


class Gateway:
    """One serving process: an ASGI application and the tasks behind it."""

    def __init__(self, settings: Settings, store_url: str, *, dev_key: str | None) -> None:
        self._settings = settings
        self._process_id = process_id = secrets.token_hex(6)
        self._writes = open_link(store_url, f"gateway-writes-{process_id}", timeout_s=settings.store_timeout_s)
        self._reads = open_link(store_url, f"gateway-reads-{process_id}", timeout_s=settings.store_timeout_s)
        self.clock = StoreClock()
        self._tail = Tail(store_url, self._writes, self.clock, process_id=process_id, probe_s=settings.probe_s)
        self._build_services(dev_key)
        self._draining = False
        self._tasks: asyncio.Task[None] | None = None
        self.asgi: ASGIApp = self._build_asgi()
        self.express, self.streams = express(self.services)
        self.health: ASGIApp = Starlette(
            routes=health_routes(self.why_not_ready),
            middleware=[Middleware(IdentifiedRequests)],
            exception_handlers=exception_handlers(),
        )

    def _build_services(self, dev_key: str | None) -> None:
        settings, clock = self._settings, self.clock
        self.stores = stores = open_stores(self._reads, self._writes, settings)
        self._build_access(stores.access, dev_key)
        self._build_streaming(stores.logs)
        engine = build_engine(stores, self.hub, clock, settings, secret=self.access.signing_secret)
        limits = measures.limits(settings)
        links, depths = {"writes": self._writes, "reads": self._reads}, Depths(stores.indexes, stores.queues)
        self._vitals = Vitals(links, clock, depths, limits.bodies, self.why_not_ready)
        self._build_clockwork(stores, engine)
        self.services: Services = self._list_services(stores, engine, limits)

    def _build_clockwork(self, stores: Stores, engine: Engine) -> None:
        """Build what acts by itself: timers, webhooks' deliveries, schedules' ticks, the sweep of files."""
        settings, clock, runs = self._settings, self.clock, stores.runs
        self._outbound = Outbound(
            measures.webhook_urls(settings),
            timeout_s=settings.webhook_timeout_s,
            connections=settings.webhook_at_once,
        )
        rules = measures.delivery_rules(settings)
        deliveries = Deliveries(stores.hooks, runs, stores.logs, self._outbound, clock, rules)
        acts: dict[str, Looker] = {DELIVERIES: deliveries, TICKS: Ticks(stores.schedules, engine.runs, runs, clock)}
        self._timers = Timers(engine.journal, engine.runs, runs, stores.timers, stores.indexes, acts)
        self.file_sweep = FileSweep(
            engine.shelf,
            stores.files,
            stores.blobs,
            stores.indexes,
            runs,
            clock,
            retention_ms=in_ms(settings.file_retention_s),
        )
        self._bells = Bells(self._tail, most_claims=settings.claims_waiting)

    def _list_services(self, stores: Stores, engine: Engine, limits: Limits) -> Services:
        settings, clock = self._settings, self.clock
        journal, once, agents, runs = engine.journal, engine.once, engine.agents, engine.runs
        control = build_control(stores, engine, settings)
        listing = Listing(stores.runs, stores.indexes, scan_records=settings.scan_records)
        callers = Callers(self.access, stores.tickets, clock, secret=settings.ticket_secret, tokens=self._tokens)
        files = build_files(stores, engine, clock, settings)
        places = (stores.runs, stores.logs, stores.queues)
        return Services(
            callers=callers,
            access=self.access,
            runs=runs,
            control=control,
            writing=engine.writing,
            listing=listing,
            batches=Batches(runs, once),
            bulk=Bulk(control, runs, listing, once),
            schedules=Schedules(stores.schedules, stores.timers, runs, agents, clock),
            webhooks=Webhooks(runs, stores.hooks, stores.timers, clock, once),
            folds=Folds(stores.runs, stores.logs),
            files=files,
            file_door=FileDoor(
                callers, files, clock, public_url=settings.public_url, lifetime_ms=in_ms(settings.file_url_s)
            ),
            once=once,
            work=Work(journal, *places, self._bells, agents, once, idempotency_ms=in_ms(settings.idempotency_s)),
            agents=agents,
            streams=Streams(self.hub, stores.runs, stores.logs, stores.indexes),
            readers=self._readers,
            hub=self.hub,
            door=self._door,
            clock=clock,
            limits=limits,
            bounds=measures.bounds(settings),
        )

    def _build_access(self, store: AccessStore, dev_key: str | None) -> None:
        settings = self._settings
        self._build_tokens()
        self.access = Access(
            store,
            recheck_s=settings.access_recheck_s,
            static_key=dev_key,
            token_key_id=None if self._tokens is None else self._tokens.key_id,
        )

    def _build_streaming(self, logs: LogReader) -> None:
        settings = self._settings
        self.hub = Hub(
            self._tail,
            logs,
            measures.channel_limits(settings),
            keepalive_s=settings.keepalive_s,
            sweep_s=settings.sweep_s,
            linger_s=settings.linger_ms / 1000,
            rings_bytes=settings.rings_bytes,
            unsent_bytes=settings.unsent_bytes,
        )
        self._readers = Readers(self.hub, self._tail, process_id=self._process_id)
        self._watch = Watch(self.hub, self.access, self.clock, recheck_s=settings.access_recheck_s)
        self._places = Places(measures.place_limits(settings), wait_s=settings.store_hold_s)
        self._door = SseDoor(self.hub, self._places, retry_ms=settings.retry_ms, hold_s=settings.store_hold_s)

    def _build_tokens(self) -> None:
        settings = self._settings
        self._tokens, self._provider_keys, self._provider = None, None, None
        rules = measures.token_rules(settings)
        if rules is None or settings.jwt_jwks is None:
            return
        urls = measures.provider_urls(settings)
        if not settings.jwt_jwks.startswith("file:"):
            check_url(settings.jwt_jwks, urls, variable("jwt_jwks"))
        self._provider = Outbound(urls, timeout_s=PROVIDER_S, connections=1)
        self._provider_keys = ProviderKeys(settings.jwt_jwks, self._provider.fetch)
        self._tokens = Tokens(rules, self._provider_keys)

    def _build_asgi(self) -> ASGIApp:
        middleware = [Middleware(IdentifiedRequests, limits=self.services.limits)]
        if self._settings.cors_origins:
            middleware.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=list(self._settings.cors_origins),
                    allow_methods=["*"],
                    allow_headers=["*"],
                    expose_headers=[
                        "X-Request-Id",
                        "Retry-After",
                        "Location",
                        "X-Next-Cursor",
                        "ETag",
                        "Content-Disposition",
                        "Content-Range",
                    ],
                )
            )
        middleware.append(Middleware(SocketOrigins, allowed=measures.socket_origins(self._settings)))
        api, handlers = _api_routes(self.services), exception_handlers()
        busy = [route for route in api if isinstance(route, Route) and route.path in BUSY_PATHS]
        middleware.append(Middleware(Shortcut, routes=busy, handlers=handlers))
        return Starlette(
            routes=[
                *health_routes(self.why_not_ready),
                *Probe(body_bytes=self.services.bounds.body_bytes).routes(),
                *api,
                *console_routes(),
            ],
            middleware=middleware,
            exception_handlers=handlers,
        )

    def why_not_ready(self) -> list[str]:
        """Return why this process should not be sent requests; nothing when it should."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        if not self._writes.is_up or not self._reads.is_up:
            reasons.append("no connection to the store")
        elif not self._tail.healthy:
            reasons.append("store notifications do not arrive")
        return reasons

    async def start(self) -> None:
        """Start the tasks and wait a while for the store; requests are answered whether or not it came."""
        self._tasks = asyncio.create_task(self._run())
        if await self._writes.wait_up(self._settings.store_timeout_s):
            # The node of a cluster that has the clock may be away while others are not.
            with suppress(StoreUnavailable):
                await self.clock.sync(self._writes)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear_revocations())
            tasks.create_task(self._readers.run())
            links = (self._writes, self._reads, self._tail)
            for part in (*links, self.hub, self._timers, self._watch, self.file_sweep, self._vitals):
                tasks.create_task(_keep_running(part.run))
            if self._provider_keys is not None:
                tasks.create_task(_keep_running(self._provider_keys.run))

    async def _hear_revocations(self) -> None:
        while True:
            try:
                return await self._tail.follow(keys.ACCESS_CHANNEL, self.access.hear)
            except StoreUnavailable:
                await self._tail.wait_store()

    def begin_drain(self) -> None:
        """Turn readiness red, so that balancers look elsewhere."""
        self._draining = True

    async def close_streams(self, window_s: float) -> None:
        """Send every reader away, spread over the window; each comes back elsewhere with its cursor."""
        self._draining = True
        self._door.draining = True
        self._door.waits.end()
        self._bells.close()
        self.hub.end_waits()
        self._places.close()
        outlets = list(self.hub.outlets)
        random.shuffle(outlets)
        pause_s = window_s / max(len(outlets), 1)
        for index, outlet in enumerate(outlets):
            outlet.dismiss("drain")
            if index < len(outlets) - 1:
                await asyncio.sleep(pause_s)
        # One that was in mid-send has yet to be told; the server would cut it off.
        while not all(outlet.closed for outlet in outlets):  # noqa: ASYNC110 - each is closed soon, whatever happens
            await asyncio.sleep(CLOSED_POLL_S)

    async def aclose(self) -> None:
        """Stop the tasks."""
        if self._tasks is not None:
            self._tasks.cancel()
            await asyncio.wait([self._tasks])
        await self._outbound.aclose()
        if self._provider is not None:
            await self._provider.aclose()


def build(settings: Settings, store_url: str, *, dev_key: str | None) -> Gateway:
    """Return a gateway that serves the store at `store_url`.

    Args:
        dev_key: A key that works without being stored; only for a loopback address.
    """
    return Gateway(settings, store_url, dev_key=dev_key)


async def _keep_running(run: Callable[[], Awaitable[None]]) -> None:
    """Run a part that is to run for ever; a failure of it is logged, and it starts again."""
    while True:
        try:
            await run()
        except Exception:
            logger.exception("a part of the gateway failed; it starts again")
        await asyncio.sleep(RESTART_S)


def _api_routes(services: Services) -> list[BaseRoute]:
    """Return the routes of every API, and of the description of all that streams."""
    native = native_routes(services)
    dialects: list[Dialect] = [import_module(f"gateway.dialects.{name}.routes").dialect(services) for name in DIALECTS]
    streams = [native_streams(native), *(dialect.streams() for dialect in dialects)]
    return [
        *native,
        *(mount for dialect in dialects for mount in dialect.mounts()),
        document_route("/asyncapi.json", lambda: asyncapi(streams)),
    ]
