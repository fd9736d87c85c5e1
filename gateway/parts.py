"""What every serving process is made of below its services: the store's parts, and the engine that changes runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway import measures
from gateway.hub.hub import Hub
from gateway.measures import in_ms
from gateway.service.agents import Agents
from gateway.service.control import Control
from gateway.service.files import Files
from gateway.service.hooks import Hooks
from gateway.service.journal import Journal
from gateway.service.once import Once
from gateway.service.runs import Runs
from gateway.service.shelf import Shelf
from gateway.service.writing import Writing
from gateway.settings import Settings
from gateway.store.access import AccessStore
from gateway.store.agents import AgentStore
from gateway.store.blobs import Blobs, open_blobs
from gateway.store.clock import StoreClock
from gateway.store.files import FileStore
from gateway.store.hooks import HookStore
from gateway.store.indexes import IndexStore
from gateway.store.link import Link
from gateway.store.log import LogReader
from gateway.store.queue import QueueStore
from gateway.store.runs import RunStore
from gateway.store.schedules import ScheduleStore
from gateway.store.tickets import TicketStore
from gateway.store.timers import TimerStore


class Stores(NamedTuple):
    """The store's parts, and the place of files."""

    runs: RunStore
    logs: LogReader
    indexes: IndexStore
    timers: TimerStore
    queues: QueueStore
    agents: AgentStore
    hooks: HookStore
    schedules: ScheduleStore
    files: FileStore
    blobs: Blobs
    access: AccessStore
    tickets: TicketStore


class Engine(NamedTuple):
    """What changes runs, and what it asks."""

    journal: Journal
    hooks: Hooks
    agents: Agents
    shelf: Shelf
    once: Once
    runs: Runs
    writing: Writing


def open_stores(reads: Link, writes: Link, settings: Settings) -> Stores:
    """Return the store's parts; reads never wait behind writes."""
    return Stores(
        runs=RunStore(reads, writes, measures.log_limits(settings)),
        logs=LogReader(reads),
        indexes=IndexStore(reads, writes, feed_entries=settings.feed_entries),
        timers=TimerStore(writes),
        queues=QueueStore(writes),
        agents=AgentStore(reads, writes),
        hooks=HookStore(reads, writes),
        schedules=ScheduleStore(reads, writes),
        files=FileStore(reads, writes),
        blobs=open_blobs(settings.files_url, settings.data_dir),
        access=AccessStore(writes),
        tickets=TicketStore(writes),
    )


def build_engine(
    stores: Stores, hub: Hub, clock: StoreClock, settings: Settings, *, secret: Callable[[], Awaitable[bytes]]
) -> Engine:
    """Return the engine.

    Args:
        secret: What signs the URLs of files.
    """
    runs, indexes, queues = stores.runs, stores.indexes, stores.queues
    journal = Journal(runs, indexes, stores.timers, queues, clock, measures.retention(settings))
    hooks = Hooks(stores.hooks, measures.webhook_urls(settings))
    agents = Agents(stores.agents, queues, hooks)
    idempotency_ms = in_ms(settings.idempotency_s)
    shelf = Shelf(stores.files, stores.blobs, indexes, secret=secret, mark_ms=idempotency_ms)
    writing = Writing(
        journal,
        runs,
        event_bytes=settings.event_bytes,
        batch_events=settings.batch_events,
        idempotency_ms=idempotency_ms,
    )
    return Engine(
        journal=journal,
        hooks=hooks,
        agents=agents,
        shelf=shelf,
        once=Once(indexes, lifetime_ms=idempotency_ms),
        runs=Runs(journal, runs, indexes, agents, hooks, hub, shelf, measures.run_limits(settings)),
        writing=writing,
    )


def build_control(stores: Stores, engine: Engine, settings: Settings) -> Control:
    """Return what people and agents ask of runs."""
    return Control(
        engine.journal,
        stores.runs,
        stores.logs,
        stores.indexes,
        engine.agents,
        cancel_grace_ms=in_ms(settings.cancel_grace_s),
        idempotency_ms=in_ms(settings.idempotency_s),
        input_bytes=settings.input_bytes,
    )


def build_files(stores: Stores, engine: Engine, clock: StoreClock, settings: Settings) -> Files:
    """Return what is done with files."""
    return Files(
        engine.shelf,
        engine.once,
        stores.runs,
        engine.writing,
        clock,
        file_bytes=settings.file_bytes,
        retention_ms=in_ms(settings.file_retention_s),
    )
