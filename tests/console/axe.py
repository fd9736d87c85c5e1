"""What axe-core finds on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.browser import Page

AXE = (Path(__file__).parents[1] / "support" / "vendor" / "axe.min.js").read_text("utf-8")
RULES = "{ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }"


async def find_serious(page: Page) -> list[Any]:
    """Return what is serious or worse: the rule, and where."""
    if await page.evaluate("typeof axe") == "undefined":
        await page.evaluate(f"{AXE}; undefined")
    # Two frames: what has just come or changed its size stands where it stays.
    await page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    found: list[Any] = await page.evaluate(
        f"axe.run(document, {RULES}).then(({{ violations }}) => violations"
        ".filter(({ impact }) => ['serious', 'critical'].includes(impact)).map(({ id, nodes }) => [id, nodes.map("
        "({ html, failureSummary, any }) => [html.slice(0, 200), failureSummary, ...any.flatMap("
        "({ relatedNodes }) => relatedNodes.map((node) => node.html.slice(0, 200)))])]))"
    )
    return found
