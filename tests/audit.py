"""`make audit`: what is known against the libraries that are pinned, and against those that the console carries.

Fails for what is found. Where no service tells of advisories nothing is audited, which is said loudly and fails
nothing: machines without a way out are no fault of a library's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import httpx

ROOT: Final = Path(__file__).parents[1]
OSV: Final = "https://api.osv.dev/v1/query"
SERVICE_S: Final = 20.0
AUDIT_S: Final = 600.0


class Library(NamedTuple):
    """A release."""

    name: str
    version: str


class Finding(NamedTuple):
    """What is known against a release, and in which releases it is cured."""

    library: Library
    advisory: str
    cured: str


# Whoever finds nothing against these knows of no advisories: pip-audit takes a package that its service does not know
# for one without any.
KNOWN_BAD: Final = Library("jinja2", "2.4.1")
KNOWN_BAD_SCRIPT: Final = Library("lodash", "4.17.11")


class Unaudited(Exception):
    """No service told of advisories."""


def audit_python(pins: Path, services: Sequence[Sequence[str]]) -> tuple[list[Finding], list[str]]:
    """Return what is known against pinned releases, and which of them the service does not know.

    Args:
        services: pip-audit's arguments that choose one; the first that knows of any advisory is asked.

    Raises:
        Unaudited: none does.
    """
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text("==".join(KNOWN_BAD) + "\n")
        for service in services:
            try:
                if any(dependency.get("vulns") for dependency in _run_pip_audit(canary, service)):
                    return _read_dependencies(_run_pip_audit(pins, service))
                reasons.append(f"{' '.join(service)}: it knows nothing against {' '.join(KNOWN_BAD)}")
            except Unaudited as error:
                reasons.append(f"{' '.join(service)}: {error}")
    raise Unaudited("; ".join(reasons))


def _run_pip_audit(pins: Path, service: Sequence[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", f"{SERVICE_S:g}", *service]
    done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_S, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        told = done.stderr.strip().splitlines()
        raise Unaudited(told[-1][:300] if told else f"pip-audit ended with {done.returncode}") from None
    return found


def _read_dependencies(found: list[dict[str, Any]]) -> tuple[list[Finding], list[str]]:
    findings = [
        Finding(Library(each["name"], each["version"]), known["id"], ", ".join(known["fix_versions"]))
        for each in found
        for known in each.get("vulns", ())
    ]
    return findings, [each["name"] for each in found if "skip_reason" in each]


def vendored(table: str) -> Iterator[Library]:
    """Yield the npm packages that a table of `package | version` rows names, several to a row."""
    for row in re.findall(r"^\| `[^|]+\| ([^|]+) \| ([^|]+) \|", table, flags=re.MULTILINE):
        names, versions = (cell.split(", ") for cell in row)
        yield from (Library(name.strip(), version.strip()) for name, version in zip(names, versions, strict=True))


def audit_scripts(libraries: Sequence[Library], osv_url: str) -> list[Finding]:
    """Return what is known against npm packages.

    Raises:
        Unaudited: the service does not answer, or knows nothing.
    """
    try:
        with httpx.Client(timeout=SERVICE_S) as client:
            if not _ask_osv(client, osv_url, KNOWN_BAD_SCRIPT):
                raise Unaudited(f"{osv_url} knows nothing against {' '.join(KNOWN_BAD_SCRIPT)}")
            return [finding for library in libraries for finding in _ask_osv(client, osv_url, library)]
    except (httpx.HTTPError, ValueError, LookupError) as error:
        raise Unaudited(f"{osv_url}: {error}") from None


def _ask_osv(client: httpx.Client, osv_url: str, library: Library) -> list[Finding]:
    package = {"name": library.name, "ecosystem": "npm"}
    answer = client.post(osv_url, json={"package": package, "version": library.version}).raise_for_status()
    return [Finding(library, known["id"], known.get("summary", "")) for known in answer.json().get("vulns", ())]


@click.command()
@click.option("--pins", type=Path, default=ROOT / "constraints.txt", help="Pinned releases.")
@click.option(
    "--table",
    type=Path,
    default=ROOT / "gateway/console/static/vendor/README.md",
    help="Names what is vendored.",
)
@click.option("--osv", default=OSV, help="Address of an OSV service.")
@click.option("--only-osv", is_flag=True, help="Ask no other service.")
def main(pins: Path, table: Path, osv: str, only_osv: bool) -> None:
    """Audit; exits with 1 for what is found."""
    services = [["--vulnerability-service", "osv", "--osv-url", osv]]
    services += [] if only_osv else [["--vulnerability-service", "pypi"]]
    findings: list[Finding] = []
    try:
        findings, unknown = audit_python(pins, services)
        click.echo(f"{pins.name}: audited, {len(findings)} found.")
        if unknown:
            click.secho(f"NOT AUDITED, for the service does not know them: {', '.join(unknown)}.", fg="red", err=True)
    except Unaudited as error:
        _say_unaudited(pins.name, error)
    try:
        libraries = list(vendored(table.read_text("utf-8")))
        found = audit_scripts(libraries, osv)
        click.echo(f"{', '.join(f'{name} {version}' for name, version in libraries)}: audited, {len(found)} found.")
        findings += found
    except Unaudited as error:
        _say_unaudited("the console's libraries", error)
    for library, advisory, cured in findings:
        click.secho(f"{library.name} {library.version}: {advisory} ({cured or 'no cure yet'})", fg="red", err=True)
    sys.exit(1 if findings else 0)


def _say_unaudited(what: str, why: Unaudited) -> None:
    click.secho(
        f"NOTHING WAS AUDITED of {what}: no service told of advisories.\n  {why}", fg="red", bold=True, err=True
    )


if __name__ == "__main__":
    main()
