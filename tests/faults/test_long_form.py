"""The long form: against a gateway that runs already, and what it writes down."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.faults.__main__ import choose_faults, go_on, parse
from tests.faults.check import Broken, Finding
from tests.faults.playing import Played
from tests.faults.report import put_into, render_table
from tests.support.running import RunningGateway

PLAYED = Played(
    fault="store: SIGKILL",
    appended=1_200,
    delivered=3_600,
    told_lost=0,
    lost=0,
    repeated=0,
    write_pause_s=0.25,
    read_pause_s=1.5,
    findings=[],
)


@pytest.mark.anyio
async def test_the_way_to_any_gateway_can_be_broken(gateway: RunningGateway) -> None:
    """With a URL and a key alone the kit does every fault of the client's hop, and finds nothing broken."""
    named = ["--url", gateway.url, "--key", gateway.key, "--silence-s", "20", "--scale", "1"]
    chosen = parse([*named, "--minutes", "0.01", "--only", "RST"])
    assert [fault.title for fault in choose_faults(parse(named))][:2] == [
        "client → gateway: latency",
        "client → gateway: bandwidth",
    ]
    (played, *_) = await go_on(chosen, choose_faults(chosen))
    assert (played.fault, played.findings) == ("client → gateway: RST", [])
    assert played.appended > 0


def test_a_url_without_a_key_is_refused() -> None:
    """One of the two alone means nothing."""
    with pytest.raises(SystemExit):
        parse(["--url", "http://127.0.0.1:1"])


def test_the_table_has_a_row_for_each_fault_and_one_for_all() -> None:
    """Sums, the longest pauses, and what was not tried."""
    lost = msgspec.structs.replace(PLAYED, lost=2, write_pause_s=0.5, findings=[Finding(Broken.LOST, "w", "…")])
    table = render_table([PLAYED, lost], {"store: clock steps": "no faketime"})
    assert "| store: SIGKILL | 2 | 2,400 | 7,200 | 0 | 2 | 0 | 0.50 s | 1.50 s |\n| **all** | 2 |" in table
    assert table.endswith("- Not tried on this machine: store: clock steps (no faketime).\n")


def test_a_report_replaces_the_last_one_and_nothing_else(tmp_path: Path) -> None:
    """What stands around the table stays."""
    page = tmp_path / "page.md"
    page.write_text("# Before\n\n")
    put_into(page, "one:", "| 1 |\n")
    page.write_text(page.read_text() + "\nAfter.\n")
    put_into(page, "two:", "| 2 |\n")
    text = page.read_text()
    assert text.startswith("# Before\n\n<!-- figures -->\n\ntwo:\n\n| 2 |\n")
    assert text.endswith("\nAfter.\n")
    assert "one" not in text
