"""A real Chromium, driven by its DevTools protocol over one WebSocket; a page of its own for each test."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

START_S = 60.0
CALL_S = 60.0
WAIT_S = 30.0
LOOK_MS = 5_000
MESSAGE_BYTES = 64 * 1024 * 1024
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
# Resolves to null once the expression is true, else to why it never was; one that throws is not true yet.
WAIT = """new Promise((resolve) => {
  let why = "it is false";
  const stop = (outcome) => { clearInterval(timer); clearTimeout(deadline); resolve(outcome); };
  const look = () => { try { if (%s) stop(null); } catch (error) { why = String(error); } };
  const timer = setInterval(look, 20);
  const deadline = setTimeout(() => stop(why), %d);
  look();
})"""
# Resolves to where the middle of an element is, once that is the same in two frames.
STAND = """new Promise((resolve) => {
  const node = document.querySelector(%s);
  let before = "";
  const look = () => {
    node.scrollIntoView({ block: "center" });
    const box = node.getBoundingClientRect();
    const middle = [box.x + box.width / 2, box.y + box.height / 2];
    if (String(middle) === before) return resolve(middle);
    before = String(middle);
    requestAnimationFrame(look);
  };
  look();
})"""


VIOLATED = "tellViolation"
TELL_VIOLATIONS = f"""addEventListener("securitypolicyviolation", ({{ effectiveDirective, blockedURI }}) =>
  {VIOLATED}(`${{effectiveDirective}} ${{blockedURI}}`))"""


@contextmanager
def run_chromium(program: str, profile: Path) -> Iterator[str]:
    """Run a browser with a fresh profile and yield the address of its DevTools."""
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TZ": "UTC"},
    )
    try:
        yield _read_address(process, profile / "DevToolsActivePort")
    finally:
        process.terminate()
        process.wait(START_S)


def _read_address(process: subprocess.Popen[bytes], announced: Path) -> str:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError, ValueError):
            port, path = announced.read_text().split()
            return f"ws://127.0.0.1:{port}{path}"
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.02)


class NavigatedAway(Exception):
    """The page that an expression was evaluated in is gone."""


class Browser:
    """A connection to a browser; `pages` get what the browser tells of them."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.pages: dict[str, Page] = {}

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params}
        await self._socket.send(json.dumps(command if session is None else {**command, "sessionId": session}))
        async with asyncio.timeout(CALL_S):
            answer = await reply
        if "error" in answer:
            gone = any(word in answer["error"]["message"] for word in ("context", "Promise was collected", "navigated"))
            raise (NavigatedAway if gone else AssertionError)(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Hand out what the browser says until the connection ends."""
        with suppress(ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                if "id" in message:
                    self._replies.pop(message["id"]).set_result(message)
                elif (page := self.pages.get(message.get("sessionId", ""))) is not None:
                    page.hear(message["method"], message["params"])


class Page:
    """One tab. `errors` are uncaught exceptions and console errors, `dialogs` what `alert` said,
    `requests` every URL that the page asked for, `violations` what its policy forbade, once `watch_policy` was called:
    `directive blocked`."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.violations: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a DevTools command about this tab."""
        return await self._browser.call(method, self._session, **params)

    def hear(self, method: str, params: dict[str, Any]) -> None:
        """Note what a test may want to know."""
        match method:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.dialogs.append(params["message"])
            case "Runtime.bindingCalled" if params["name"] == VIOLATED:
                self.violations.append(params["payload"])
            case "Page.downloadWillBegin":
                self.requests.append(params["url"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    async def watch_policy(self) -> None:
        """Note from the next document on whatever a content security policy forbids in any of them."""
        await self.call("Runtime.addBinding", name=VIOLATED)
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=TELL_VIOLATIONS)

    async def open_beside(self) -> Page:
        """Return another tab, which shares with this one what tabs of one person share."""
        return await _open_tab(self._browser, self._context)

    async def set_online(self, online: bool) -> None:
        """Have this tab told that the network is there, or gone."""
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", offline=not online, **speed)

    async def open(self, url: str) -> None:
        """Go to an address; a change of the fragment alone reloads nothing."""
        await self.call("Page.navigate", url=url)

    async def reload(self) -> None:
        """Load the page anew."""
        await self.call("Page.reload")

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of the page, awaited when it is a promise."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait(self, condition: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait until an expression of the page is true, across its reloads."""
        deadline = time.monotonic() + timeout_s
        why = "no page"
        while (left_ms := int((deadline - time.monotonic()) * 1000)) > 0:
            try:
                why = await self.evaluate(WAIT % (condition, min(left_ms, LOOK_MS)))
            except NavigatedAway:
                continue
            if why is None:
                return
        shown = await self.evaluate("document.body.innerText")
        raise AssertionError(f"not within {timeout_s} s: {condition}: {why}\n{shown}\nerrors: {self.errors}")

    async def wait_text(self, text: str, *, within: str = "body") -> None:
        """Wait until a text is to be seen."""
        await self.wait(f"document.querySelector({json.dumps(within)}).innerText.includes({json.dumps(text)})")

    async def text(self, selector: str) -> str:
        """Return what an element shows."""
        found = await self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        assert isinstance(found, str)
        return found

    async def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element, once it is there and stands still."""
        await self.wait(f"document.querySelector({json.dumps(selector)}).checkVisibility()")
        x, y = await self.evaluate(STAND % json.dumps(selector))
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, code: int) -> None:
        """Press a key, such as Tab (9) or Enter (13)."""
        facts: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def resize(self, width: int, height: int) -> None:
        """Take a size in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def show_as(self, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Take a size in CSS pixels, and the light or dark colour scheme."""
        await self.resize(width, height)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is to be seen, or the whole page, as a PNG."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))


@asynccontextmanager
async def open_page(devtools_url: str) -> AsyncIterator[Page]:
    """Yield an empty tab that shares nothing with any other, and close it in the end."""
    async with connect(devtools_url, max_size=MESSAGE_BYTES, proxy=None) as socket:
        browser = Browser(socket)
        listening = asyncio.create_task(browser.listen())
        context = (await browser.call("Target.createBrowserContext", disposeOnDetach=True))["browserContextId"]
        try:
            yield await _open_tab(browser, context)
        finally:
            await browser.call("Target.disposeBrowserContext", browserContextId=context)
            listening.cancel()
            await asyncio.wait([listening])


async def _open_tab(browser: Browser, context: str) -> Page:
    target = await browser.call("Target.createTarget", url="about:blank", browserContextId=context)
    attached = await browser.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    page = Page(browser, attached["sessionId"], context)
    browser.pages[attached["sessionId"]] = page
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page.call(f"{domain}.enable")
    return page
