"""`gateway serve`: the socket, the store, the development key, and the processes that serve."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Final

import anyio
import click

from gateway import telemetry, tracing
from gateway.commands import listen
from gateway.commands.crew import Crew
from gateway.commands.dev_key import NoKeys, choose_key
from gateway.commands.metrics_dir import default_place, metrics_dir
from gateway.commands.server import Stopping, serve_app, set_up_logging, stop_on_signals
from gateway.commands.supervisor import Program, keep_running
from gateway.commands.welcome import welcome
from gateway.errors import StoreUnavailable
from gateway.keyring import open_access
from gateway.settings import Settings, load, variable
from gateway.store.embedded import EmbeddedStore
from gateway.store.links import linked
from gateway.store.rights import NoRights, StoreTooOld, check_rights

logger = logging.getLogger(__name__)

# What a process may take beyond its drain: requests in flight, and closing.
STOP_MARGIN_S: Final = 15.0
METRICS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"


@click.command()
@click.option("--host", help="Address to listen on.  [env: GATEWAY_HOST; default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 takes a free one.  [env: GATEWAY_PORT; default: 8000]")
@click.option(
    "--data-dir",
    help="Where the embedded store and files are kept.  [env: GATEWAY_DATA_DIR; default: .gateway]",
)
@click.option("--workers", help="Processes that serve the port.  [env: GATEWAY_WORKERS; default: 1]")
@click.option("--demo", is_flag=True, help="Run the demo agent beside the gateway.")
def command(demo: bool, **flags: str | None) -> None:
    """Run the gateway, with a store of its own unless GATEWAY_REDIS_URL names one."""
    given = {variable(name): value for name, value in flags.items() if value is not None}
    environ = {**os.environ, **given}
    settings = load(environ)
    if settings.traces == "otlp":
        tracing.require()
    set_up_logging(settings)
    anyio.run(serve, settings, environ, demo, backend_options={"use_uvloop": True})


async def serve(settings: Settings, environ: Mapping[str, str], demo: bool) -> None:
    """Serve until SIGTERM or SIGINT; the store ends last.

    Raises:
        CannotListen, NoKeys, DataDirInUse, DataDirUnusable, StoreStartFailed, StoreUnavailable: it cannot begin.
    """
    stopping = Stopping()
    async with anyio.create_task_group() as group:
        group.start_soon(stop_on_signals, stopping)
        sock = await listen.listen(settings.host, settings.port)
        with sock, await open_health(settings) as health:
            async with open_store(settings) as store_url:
                await _serve(settings, environ, sock, store_url, health=health, demo=demo, stopping=stopping)
        group.cancel_scope.cancel()


async def open_health(settings: Settings) -> socket.socket | nullcontext[None]:
    """Return the socket on which others are told how the gateway is, where it has one of its own."""
    if settings.health_port is None:
        return nullcontext()
    return await listen.listen(settings.host, settings.health_port)


async def _serve(
    settings: Settings,
    environ: Mapping[str, str],
    sock: socket.socket,
    store_url: str,
    *,
    health: socket.socket | None,
    demo: bool,
    stopping: Stopping,
) -> None:
    stored_keys = await count_keys(settings, store_url)
    loopback = listen.is_loopback(sock)
    dev_key = choose_key(settings.data_dir, fixed=settings.dev_key, loopback=loopback, stored_keys=stored_keys)
    if settings.dev_key is not None and not loopback:
        logger.warning("GATEWAY_DEV_KEY is ignored: other machines can reach this address")
    url = listen.format_url(sock)
    program = plan_demo(environ, url, dev_key) if demo else None

    def announce() -> None:
        click.echo(welcome(settings, url, dev_key))

    async with anyio.create_task_group() as group:
        if program is not None:
            group.start_soon(keep_running, program, stopping.begun)
        if settings.workers == 1:
            await serve_app(
                settings, sock, store_url, dev_key=dev_key, stopping=stopping, announce=announce, health=health
            )
        else:
            announce()
            await serve_with_workers(
                settings, environ, sock, store_url, health=health, dev_key=dev_key, stopping=stopping
            )
        # Whoever stopped serving without being told takes the rest along.
        stopping.begin()


async def count_keys(settings: Settings, store_url: str) -> int:
    """Return how many stored keys work.

    Raises:
        StoreUnavailable: the detail names the variable that may be wrong.
        NoRights, StoreTooOld: the store's user, or the store, cannot do what the gateway needs.
    """
    try:
        async with linked(store_url, "gateway-start", timeout_s=settings.store_timeout_s) as link:
            await check_rights(link)
        async with open_access(settings, store_url) as keys:
            return await keys.count()
    except StoreUnavailable as error:
        where = "the embedded store" if settings.redis_url is None else "the store of GATEWAY_REDIS_URL"
        raise StoreUnavailable(f"Cannot begin without {where}: {error.detail}", **error.facts) from error
    except (NoRights, StoreTooOld) as error:
        raise type(error)(f"Cannot begin with the store of GATEWAY_REDIS_URL: {error.detail}") from error


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the configured store, else of an embedded one that lives until the end."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    store = EmbeddedStore(settings.data_dir, fsync=settings.embedded_fsync)
    await store.start()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(store.supervise)
            yield store.url
            group.cancel_scope.cancel()
    finally:
        await store.stop()


async def serve_with_workers(
    settings: Settings,
    environ: Mapping[str, str],
    sock: socket.socket,
    store_url: str,
    *,
    health: socket.socket | None = None,
    dev_key: str | None,
    stopping: Stopping,
) -> None:
    """Have `settings.workers` processes serve `sock`, each replaced when it dies, until all have drained.

    SIGHUP replaces all of them, one after another.
    """
    lifeline, held = os.pipe()
    try:
        with metrics_dir(default_place()) as directory:
            environ = {METRICS_DIR: directory, **environ}

            def plan(told: int) -> Program:
                return plan_worker(settings, environ, sock, lifeline, store_url, dev_key, health, told)

            def stop_listening() -> None:
                # The last process that has it open would go on queueing connections that nobody accepts.
                sock.close()
                if health is not None:
                    health.close()

            crew = Crew(plan, settings.workers, on_end=lambda pid: telemetry.forget_process(pid, directory))
            await crew.run(stopping.begun, stop_listening)
    finally:
        os.close(held)
        os.close(lifeline)


def plan_worker(
    settings: Settings,
    environ: Mapping[str, str],
    sock: socket.socket,
    lifeline: int,
    store_url: str,
    dev_key: str | None,
    health: socket.socket | None,
    told: int,
) -> Program:
    """Return how a worker is run; secrets go by its environment, which only this user can read.

    Args:
        told: The descriptor on which it says that it serves.
    """
    arguments: tuple[str, ...] = ("serve-worker", "--socket-fd", str(sock.fileno()), "--lifeline-fd", str(lifeline))
    arguments = (*arguments, "--told-fd", str(told))
    inherited = [sock.fileno(), lifeline, told]
    if health is not None:
        arguments = (*arguments, "--health-fd", str(health.fileno()))
        inherited.append(health.fileno())
    return Program(
        name="a worker",
        arguments=(sys.executable, "-m", "gateway", *arguments),
        environ={**environ, variable("redis_url"): store_url, variable("dev_key"): dev_key or ""},
        inherited=inherited,
        stop_s=settings.readiness_lead_s + 2 * settings.drain_s + STOP_MARGIN_S,
    )


def plan_demo(environ: Mapping[str, str], url: str, dev_key: str | None) -> Program:
    """Return how the demo agent is run, with the development key or the one in the environment.

    Raises:
        NoKeys: there is neither.
    """
    key = dev_key or environ.get("GATEWAY_KEY")
    if not key:
        raise NoKeys(
            "The demo agent has no key: keys are stored, so no development key is made. "
            "Give GATEWAY_KEY one with the scope admin, or, on 127.0.0.1, GATEWAY_DEV_KEY one of your choice."
        )
    return Program(
        name="the demo agent",
        arguments=(sys.executable, "-m", "gateway", "demo"),
        environ={**environ, "GATEWAY_URL": url, "GATEWAY_KEY": key},
        stop_s=STOP_MARGIN_S,
        tied=True,
    )
