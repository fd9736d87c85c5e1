"""That `client.d.ts` says what pages may do, and nothing else: checked by the TypeScript compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import NO_TSC

TSC = shutil.which("tsc")
BROWSER = Path(__file__).parents[2] / "gateway" / "console" / "browser"
PAGE = Path(__file__).with_name("types") / "page.ts"
SECONDS = 120


@pytest.mark.skipif(TSC is None, reason=NO_TSC)
def test_the_types_fit_what_a_page_does(tmp_path: Path) -> None:
    """A page that does everything compiles under `strict`; every line marked as wrong is refused."""
    for file in [*BROWSER.glob("*.d.ts"), PAGE]:
        shutil.copy(file, tmp_path)
    assert TSC is not None
    (tmp_path / "package.json").write_text('{"type": "module"}')
    told = subprocess.run(
        [TSC, "--strict", "--noEmit", "--target", "es2022", "--module", "node16", PAGE.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("name", ["client", "client-react"])
def test_every_export_has_a_type(name: str) -> None:
    """What the module exports its declarations declare, and no more."""
    exports = r"^export (?:declare )?(?:async )?(?:const|function|class) (\w+)"
    code = re.findall(exports, (BROWSER / f"{name}.js").read_text("utf-8"), flags=re.MULTILINE)
    types = re.findall(exports, (BROWSER / f"{name}.d.ts").read_text("utf-8"), flags=re.MULTILINE)
    assert code
    assert sorted(code) == sorted(types)
