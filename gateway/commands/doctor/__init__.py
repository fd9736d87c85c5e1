"""`gateway doctor`: whether the store, this machine and the way to a running gateway keep its promises, in words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import click
import msgspec

from gateway.client import find_key
from gateway.commands.doctor.finding import Finding, Ward, has_problem
from gateway.commands.doctor.machine_ward import judge_machine
from gateway.commands.doctor.store_ward import judge_cluster, judge_sentinels, judge_store
from gateway.commands.doctor.way_ward import judge_way
from gateway.errors import GatewayError
from gateway.settings import Settings, load, variable
from gateway.store.condition import StoreCondition, read_conditions
from gateway.store.embedded import borrow_store
from gateway.store.sentinel import ask_sentinels
from gateway.store.store_url import Kind, read_url

MARKS: Final = {"good": "ok     ", "note": "note   ", "warning": "WARNING", "problem": "PROBLEM"}
NAME: Final = "gateway-doctor"
ROOM: Final = max(map(len, MARKS.values()))


@click.command()
@click.option(
    "--url", envvar="GATEWAY_URL", help="A running gateway's address, as its clients use it.  [env: GATEWAY_URL]"
)
@click.option("--key", envvar="GATEWAY_KEY", help="An API key, for what takes one.  [env: GATEWAY_KEY]")
@click.option("--store/--no-store", default=True, show_default=True, help="Look at the store and this machine.")
@click.option("--data-dir", help="Where the embedded store is.  [env: GATEWAY_DATA_DIR; default: .gateway]")
@click.option(
    "--readers", type=click.IntRange(0), default=1_000, show_default=True, help="How many are expected at once."
)
@click.option(
    "--idle",
    "idle_s",
    type=click.FloatRange(0, 600),
    default=20.0,
    show_default=True,
    help="Seconds for which connections are left silent; 0 leaves that out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(
    url: str | None, key: str | None, store: bool, data_dir: str | None, readers: int, idle_s: float, as_json: bool
) -> None:
    """Look for what would break a promise: in the store, on this machine, between here and a running gateway.

    The store is the one that `gateway serve` would use here.
    Nothing is changed; the exit status is 1 if there is a problem.
    """
    given = {variable("data_dir"): data_dir} if data_dir is not None else {}
    settings = load({**os.environ, **given})
    if url is not None and not _is_address(url):
        raise click.BadParameter(f"{url!r} is not an http:// or https:// address.", param_hint="--url")
    if url is not None and key is None:
        key = find_key(os.environ, Path.cwd())
    findings = anyio.run(_examine, settings, url, key, store, readers, idle_s)
    click.echo(_tell_json(findings) if as_json else _tell(findings))
    if has_problem(findings):
        raise click.exceptions.Exit(1)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def _examine(
    settings: Settings, url: str | None, key: str | None, store: bool, readers: int, idle_s: float
) -> Sequence[Finding]:
    findings: list[Finding] = []
    if store:
        embedded = settings.redis_url is None
        findings += await _examine_store(settings)
        findings += judge_machine(settings.data_dir, readers=readers, workers=settings.workers, embedded=embedded)
    if url is not None:
        findings += await judge_way(url.rstrip("/"), key, idle_s=idle_s)
    elif not findings:
        raise click.UsageError("There is nothing to look at: give --url, or leave --no-store out.")
    return findings


async def _examine_store(settings: Settings) -> Sequence[Finding]:
    ward = Ward("store")
    try:
        if settings.redis_url is not None:
            return await _examine_given(settings, settings.redis_url)
        if not settings.data_dir.exists():
            # To look is not to make one.
            ward.add("answers", "note", f"There is no store yet: `gateway serve` will make one in {settings.data_dir}.")
            return ward.findings
        async with borrow_store(settings.data_dir, fsync=settings.embedded_fsync) as store_url:
            (condition,) = (await _read(settings, store_url)).values()
            return judge_store(condition, embedded=True)
    except GatewayError as error:
        where = "the embedded store" if settings.redis_url is None else "the store of GATEWAY_REDIS_URL"
        cure = "Is it running, and are its address, its password and the rights of its user right?"
        ward.add("answers", "problem", f"No answer of {where}: {error.detail}", cure)
    return ward.findings


async def _examine_given(settings: Settings, url: str) -> Sequence[Finding]:
    conditions = await _read(settings, url)
    store = read_url(url)
    if store.kind is Kind.CLUSTER:
        return judge_cluster(conditions)
    (condition,) = conditions.values()
    findings = judge_store(condition, embedded=False)
    if store.kind is Kind.SENTINEL:
        findings += judge_sentinels(await ask_sentinels(store, NAME))
    return findings


async def _read(settings: Settings, store_url: str) -> Mapping[str, StoreCondition]:
    return await read_conditions(store_url, NAME, timeout_s=settings.store_timeout_s)


def _tell_json(findings: Sequence[Finding]) -> str:
    report = {"problem": has_problem(findings), "findings": findings}
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def _tell(findings: Sequence[Finding]) -> str:
    lines: list[str] = []
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            lines += ["", area] if lines else [area]
        lines.append(f"  {MARKS[finding.level]}  {finding.check}: {finding.said}")
        if finding.cure:
            lines.append(f"  {' ' * ROOM}    {finding.cure}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("problem", "warning")}
    lines += ["", ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items())]
    return "\n".join(lines)
