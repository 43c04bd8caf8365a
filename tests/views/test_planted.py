"""A report of a fleet whose every word is an attack, opened in a real browser that would let scripts run: none does, the words are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from views import hand_made
from views.serving import CHROMIUM, FLAGS, needs_chromium

from psodlib.views.report import report
from psodlib.views.words import literal

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
pytestmark = [pytest.mark.slow, needs_chromium]
RUN = "window.planted=(window.planted||0)+1"
# One for each reader on the way: HTML, a script block, an attribute, SVG, Markdown, LaTeX, typst, a spreadsheet.
PLANTS = [
    f"<img src=x onerror={RUN}>", f"</script></style></title><script>{RUN}</script>", f"\"' autofocus onfocus={RUN} x=\"",
    f"]]></text><svg onload={RUN}><script>{RUN}</script>", f"[a](javascript:{RUN}) ![b](x)", r"$\input{x}$ \href{x}{y}",
    '#read("content.json") #image("x")', "=cmd|'/C calc'!A0",
]  # fmt: skip
FIELDS = ("host", "message", "function", "module", "version", "source", "detail", "signature", "world_name", "vib")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The report, and what was planted in each field: two plants a field, so that one report looks at all of them twice."""
    pairs = [f"{one} {PLANTS[(at + 2) % len(PLANTS)]}" for at, one in enumerate(PLANTS)]
    words = {name: f"{pairs[at % len(pairs)]} {name}" for at, name in enumerate(FIELDS)}
    fleet = hand_made.fleet(hosts=3, crashing=2, words=words, cluster=pairs[0], model=pairs[-1])
    made = report(fleet, tmp_path_factory.mktemp("planted"), notebooks=False)
    return made.folder, words


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=60_000)
        yield opened
        opened.close()


def test_nothing_planted_runs_and_all_of_it_is_read(planted: tuple[Path, dict[str, str]], browser: Any) -> None:
    folder, words = planted
    # As a wiki might show the pages: without the policy of their own that forbids scripts.
    context = browser.new_context(offline=True, bypass_csp=True)
    pages = [*folder.glob("*.html"), *folder.glob("charts/*.svg")]
    assert len(pages) >= 4 + 8
    page = context.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in pages:
        page.goto(path.as_uri(), timeout=30_000)
        page.keyboard.press("Tab")
        assert page.evaluate("window.planted") is None, path.name
        # Data, and the module that the policy names.
        scripts = 2 if path.name in ("explorer.html", "index.html", "writeup.html") else 0
        assert (
            page.evaluate("document.querySelectorAll('script, iframe, object, embed, foreignObject').length") == scripts
        )
        links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href') || '')")
        assert not [href for href in links if "javascript" in href], path.name
    page.goto((folder / "explorer.html").as_uri())
    for place in page.evaluate("[...document.querySelectorAll('section[id]')].map(each => each.id)"):
        page.evaluate("place => { location.hash = encodeURIComponent(place) }", place)
        page.wait_for_function("place => !document.getElementById(place).hidden", arg=place)
    assert literal(words["message"]) in page.inner_text("section[id]:not([hidden])")
    for place in (
        RUN,
        "crash=</script><img src=x onerror=" + RUN + ">",
        "host=constructor",
        "crash=__proto__",
        "%",
        "crash=%E0%A4%A",
    ):
        page.evaluate("place => { location.hash = place }", place)
        page.wait_for_timeout(50)
    for box in page.locator(".psx select").all():  # every value of every filter is drawn once
        for at in range(min(box.locator("option").count(), 4)):
            box.select_option(index=at)
        box.select_option(index=0)
    assert page.evaluate("window.planted") is None
    page.goto((folder / "index.html").as_uri())
    assert " ".join(words["detail"].split()) in " ".join(page.inner_text("main").split())
    assert dialogs == []
    context.close()
