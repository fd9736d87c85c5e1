"""Programs that tests need and a machine may lack; what was skipped for want of one is said in plain sight."""

from __future__ import annotations

import shutil
import subprocess

import pytest

NODE_MAJOR = 20
NO_CHROMIUM = "NO CHROMIUM ON THE PATH: THE CONSOLE WAS NOT TESTED (apt-get install chromium)"
NO_NODE = "NO NODE 20 OR NEWER ON THE PATH: THE BROWSER'S CLIENT WAS NOT TESTED IN IT (apt-get install nodejs)"
NO_TSC = "NO TYPESCRIPT ON THE PATH: THE BROWSER'S CLIENT'S TYPES WERE NOT CHECKED (apt-get install node-typescript)"
NO_REDIS = "NO REDIS ON THE PATH: CLUSTERS, SENTINELS AND TLS OF REDIS WERE NOT TESTED (apt-get install redis-server)"


def find_chromium() -> str | None:
    """Return the path of the browser, None where there is none."""
    return shutil.which("chromium")


def find_node() -> str | None:
    """Return the path of a Node that has what browsers have, None where there is none."""
    program = shutil.which("node")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    return program if int(told.strip().removeprefix("v").split(".")[0]) >= NODE_MAJOR else None


def say_what_lacks(reporter: pytest.TerminalReporter) -> None:
    """Say at the very end which programs tests were skipped for; a line among the skipped tests is overlooked."""
    reasons = " ".join(str(report.longrepr) for report in reporter.stats.get("skipped", []))
    lacking = [words for words in (NO_CHROMIUM, NO_NODE, NO_TSC, NO_REDIS) if words in reasons]
    if lacking:
        reporter.section("not tested here", sep="!", red=True, bold=True)
    for words in lacking:
        reporter.line(words, red=True, bold=True)
