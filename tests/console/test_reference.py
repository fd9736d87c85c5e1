"""The reference page: what the documents say, in a real browser, under the policy that it is served with."""

from __future__ import annotations

import pytest

from gateway.app import DIALECTS
from tests.support.browser import Page
from tests.support.native import accepted
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("place", ["", *(f"/compat/{name}" for name in DIALECTS)])
async def test_the_page_shows_every_operation_and_every_type(page: Page, gateway: RunningGateway, place: str) -> None:
    """Each has a place that the list at the side leads to; nothing is refused by the browser or goes wrong."""
    document = accepted(await gateway.client.get(f"{place}/openapi.json"))
    operations = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    await page.open(f"{gateway.url}{place}/docs")
    await page.wait(
        f"document.querySelectorAll('section').length === {len(operations)} + TYPES".replace(
            "TYPES", str(len(document["components"]["schemas"]))
        )
    )
    shown = await page.evaluate("[...document.querySelectorAll('section')].map((section) => section.id)")
    led_to = await page.evaluate("[...document.querySelectorAll('nav a')].map((link) => link.hash.slice(1))")
    assert shown == led_to
    assert shown[: len(operations)] == operations
    assert page.errors == []


@pytest.mark.parametrize("width", [1280, 360])
async def test_the_page_fits(page: Page, gateway: RunningGateway, width: int) -> None:
    """Nothing sticks out sideways."""
    await page.show_as(width=width)
    await page.open(f"{gateway.url}/docs")
    await page.wait("document.querySelectorAll('section').length > 50")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
