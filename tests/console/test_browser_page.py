"""The page about browsers is executed as it stands: a page and its server of another origin than the gateway's."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.browser import Page
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

DOCUMENT = (Path(__file__).parents[2] / "docs" / "browser.md").read_text("utf-8")
HTML = re.findall(r"```html\n<!-- page.html -->\n(.*?)```", DOCUMENT, flags=re.DOTALL)[0]
SERVER = re.findall(r"```python\n# page.py\n(.*?)```", DOCUMENT, flags=re.DOTALL)[0]
ITERATION = re.findall(r"```js\n(for await .*?)\n```", DOCUMENT, flags=re.DOTALL)[0]
WRITTEN_FOR = "http://127.0.0.1:8000"


@contextmanager
def serve_page(folder: Path, gateway: RunningGateway, listening: socket.socket) -> Iterator[None]:
    """Serve the document's page as it says, with the gateway where it is."""
    assert WRITTEN_FOR in HTML
    (folder / "page.html").write_text(HTML.replace(WRITTEN_FOR, gateway.url))
    (folder / "page.py").write_text(SERVER)
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "page:app", "--fd", str(listening.fileno()), "--log-level", "error"],
        cwd=folder,
        env={**os.environ, "GATEWAY": gateway.url, "KEY": gateway.key},
        pass_fds=[listening.fileno()],
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


async def test_a_stranger_builds_a_page_from_the_document(page: Page, store: RunningStore, tmp_path: Path) -> None:
    """Its visitor has no key: tickets come from the page's own server, and the text is there as it is written."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with run_gateway(store.url, cors_origins=(origin,)) as gateway:
            run = await gateway.run_in("running")
            with serve_page(tmp_path, gateway, listening):
                await page.open(f"{origin}/#{run['id']}")
                await page.wait_text("running (live)", within="#status")
                await gateway.append(run["id"], ("message.delta", {"content": "Low water"}))
                await page.wait_text("Low water", within="#text")
                await gateway.append(run["id"], ("message.delta", {"content": " at noon."}), COMPLETE)
                await page.wait_text("completed (ended)", within="#status")
                assert await page.text("#text") == "Low water at noon."
                await page.open("about:blank")
                await page.open(f"{origin}/#01JZZZZZZZZZZZZZZZZZZZZZZZ")
                await page.wait_text("(failed)", within="#status")


async def test_the_iteration_of_the_document_runs(page: Page, gateway: RunningGateway) -> None:
    """What is written there, word for word, logs every event and ends with the run."""
    run = await gateway.run_in("running")
    last = (await gateway.append(run["id"], LOG, COMPLETE)).json()["last_seq"]
    await page.open(f"{gateway.url}/console/icon.svg")
    logged = await page.evaluate(f"""(async () => {{
      const {{ openRun }} = await import("/client.js");
      const logged = [], console = {{ log: (...words) => logged.push(words[0]) }};
      const runId = "{run["id"]}", key = "{gateway.key}";
      const ticket = async ({{ runs }}) => (await (await fetch("/v1/tickets", {{
        method: "POST", body: JSON.stringify({{ runs }}), headers: {{ authorization: `Bearer ${{key}}` }},
      }})).json()).ticket;
      {ITERATION}
      return logged;
    }})()""")
    assert logged == list(range(1, last + 1))
