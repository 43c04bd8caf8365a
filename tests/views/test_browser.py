"""The report's pages in a real browser with the network off: nothing asked for, nothing complained of, nothing cut off."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from nbconvert import HTMLExporter
from views import hand_made
from views.serving import CHROMIUM, FLAGS, needs_chromium

from psodlib.views.explore import explore
from psodlib.views.notebooks import FORMAT as nbformat
from psodlib.views.notebooks import notebook_folder

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
pytestmark = [pytest.mark.slow, needs_chromium]
WRITE = """
import sys
from psodlib.fleet import Fleet
from psodlib.views.report import report
sys.exit(", ".join(report(Fleet.open(sys.argv[1]), sys.argv[2]).failed) or 0)
"""
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
# What a reader would notice: pictures that did not load, words that run out of the page, contrast below 4.5:1.
LOOK = """() => ({
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt),
  silent: [...document.images].filter(i => !i.alt.trim()).length,
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  headings: [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1]),
  nameless: [...document.querySelectorAll('a,[tabindex="0"]')].filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.querySelector('img[alt]'))).length,
})"""
AXE = """async () => (await axe.run(document)).violations
  .filter(fault => ['serious', 'critical'].includes(fault.impact))
  .map(fault => [fault.id, fault.nodes.map(node => node.html.slice(0, 120))])"""
CONTRAST = """() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const paper = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(paper(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([e.tagName, e.className, e.textContent.slice(0, 40), ratio.toFixed(2)]);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report, notebooks and all, of a fleet with markup in its words."""
    fleet = hand_made.fleet(
        hosts=6, crashing=3, words={"message": "<script>window.planted=1</script> in world 7:vmklinux_9:h"}
    )
    folder = tmp_path_factory.mktemp("browser")
    fleet.save(folder / "fleet")
    # In a process of its own: nbclient leaves event loops of its threads open, and here every warning is an error.
    command = [sys.executable, "-c", WRITE, str(folder / "fleet"), str(folder / "report")]
    subprocess.run(command, check=True, timeout=240)
    return folder / "report"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=60_000)
        yield opened
        opened.close()


def _pages(made: Path) -> list[Path]:
    return [*made.glob("*.html"), *made.glob("notebooks/*.html")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_open_offline_and_are_whole(made: Path, browser: Any, tmp_path: Path, size: str, scheme: str) -> None:
    pages = _pages(made)
    assert len(pages) == 4 + len(list(notebook_folder().glob("*.ipynb")))
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True, color_scheme=scheme)
    for path in pages:
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(path.as_uri(), timeout=30_000)
        seen = page.evaluate(LOOK)
        assert said == [], path.name
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], path.name
        assert seen["broken"] == [] and seen["silent"] == 0 and seen["nameless"] == 0, path.name
        assert seen["sideways"] <= 0, path.name
        steps = seen["headings"]
        assert steps[0] == 1 and steps.count(1) == 1, path.name
        assert all(after <= before + 1 for before, after in pairwise(steps)), (path.name, steps)
        assert page.evaluate(CONTRAST) == [], path.name
        page.screenshot(path=tmp_path / f"{path.stem}-{size}-{scheme}.png", full_page=True, timeout=30_000)
        page.close()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(made: Path, browser: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed (extra `test`)")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    # The pages forbid scripts; the one that looks them over is let in by the browser.
    context = browser.new_context(offline=True, bypass_csp=True, color_scheme=scheme)
    for path in _pages(made):
        page = context.new_page()
        page.goto(path.as_uri(), timeout=30_000)
        page.evaluate(script)
        assert page.evaluate(AXE) == [], path.name
        if path.name == "explorer.html":  # and with a crash open, and with a host
            for place in ("a.crash", "td:nth-child(2) a"):
                page.locator(f".psx {place}").first.click()
                assert page.evaluate(AXE) == [], place
        assert page.evaluate("window.planted") is None, path.name  # though nothing forbids scripts here
        page.close()
    context.close()


@pytest.fixture
def explorer(made: Path, browser: Any) -> Iterator[Any]:
    """The explorer's page from a file, the network off; what it complained of is read at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((made / "explorer.html").as_uri(), timeout=30_000)
    yield page
    assert said == []
    context.close()


def _total(page: Any) -> str:
    return str(page.inner_text(".psx p[aria-live]"))


def _filter(page: Any, words: str) -> Any:
    return page.locator(".psx label", has=page.get_by_text(words, exact=True)).locator("select")


def test_filters_narrow_and_count_under_each_other(explorer: Any) -> None:
    assert _total(explorer) == "3 crashes on 3 hosts."
    assert explorer.locator(".psx .dot").count() == 3
    explorer.get_by_label("Host has").fill("esx01")
    assert _total(explorer) == "1 of 3 crashes on 1 host."
    assert _filter(explorer, "Module").locator("option").all_text_contents() == ["any (1)", "hpsa (1)"]
    assert explorer.evaluate("document.activeElement.type") == "search"  # typing goes on
    explorer.get_by_role("button", name="Clear filters").click()
    for label, value in (("Version loaded", "5.5.0.58 (3)"), ("Cluster", "blue (3)"), ("Module", "hpsa (3)")):
        _filter(explorer, label).select_option(label=value)
        assert _total(explorer).startswith("3 crashes")
    months = _filter(explorer, "To month").locator("option").all_text_contents()
    _filter(explorer, "To month").select_option(months[1])
    assert _total(explorer) == "1 of 3 crashes on 1 host."


def test_a_dot_opens_its_crash_and_the_address_stays(explorer: Any, made: Path) -> None:
    assert explorer.locator("section[id^='crash=']:visible").count() == 0
    explorer.locator(".psx a.crash").first.click()
    place = explorer.evaluate("location.hash")
    assert place.startswith("#crash=c0000")
    assert explorer.locator("section[id^='crash=']:visible").count() == 1
    assert explorer.locator(".psx .ring").count() == 1
    again = explorer.context.new_page()
    again.goto((made / "explorer.html").as_uri() + place, timeout=30_000)
    assert again.locator("section[id^='crash=']:visible").get_attribute("id") == place[1:]
    again.close()
    explorer.go_back()
    explorer.wait_for_function('!document.querySelector(".psx .ring")')


def test_a_host_has_an_address_with_its_boots_and_crashes(explorer: Any) -> None:
    explorer.locator(".psx td a", has_text="esx01").first.click()
    assert explorer.evaluate("location.hash") == "#host=esx01"
    words = explorer.inner_text(".psx .chosen:not(tr)")
    assert "Host esx01; cluster blue" in words and "1 crash" in words and words.count("5.5.0.5") == 2
    explorer.locator(".psx div.chosen a").first.click()
    assert explorer.evaluate("location.hash") == "#crash=c000000000000001"


def test_the_list_sorts_and_the_timeline_zooms_by_keyboard(explorer: Any) -> None:
    cells = lambda: explorer.locator(".psx tbody tr td:nth-child(2)").all_inner_texts()  # noqa: E731
    assert cells() == ["esx02", "esx01", "esx00"]
    explorer.get_by_role("button", name="Host", exact=False).first.press("Enter")
    assert cells() == ["esx00", "esx01", "esx02"]
    assert explorer.locator("th[aria-sort=ascending]").inner_text().startswith("Host")
    before = explorer.locator(".psx svg").get_attribute("aria-label")
    explorer.get_by_role("button", name="Zoom in").press("Enter")
    assert explorer.locator(".psx svg").get_attribute("aria-label") != before
    explorer.get_by_role("button", name="Whole time").press("Enter")
    assert explorer.locator(".psx svg").get_attribute("aria-label") == before


def test_what_is_pointed_at_or_focused_is_told(explorer: Any) -> None:
    tip = explorer.locator(".psx .tip")
    assert tip.inner_text() == ""
    explorer.locator(".psx rect.boot").first.hover()
    assert "hpsa 5.5.0.5" in tip.inner_text() and "ended by" in tip.inner_text()
    explorer.locator(".psx a.crash").first.focus()
    assert tip.inner_text().startswith("Crash, ")
    explorer.locator(".psx p[aria-live]").hover()
    explorer.locator(".psx a.crash").first.blur()
    assert tip.inner_text() == ""


@pytest.mark.parametrize(("name", "hosts"), [("index.html", 6), ("writeup.html", 1)])
def test_pictures_beside_others_are_hovered_zoomed_and_lead_to_the_explorer(
    made: Path, browser: Any, name: str, hosts: int
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((made / name).as_uri(), timeout=30_000)
    picture = page.locator(".psx svg")
    before = picture.get_attribute("aria-label")
    assert before.startswith(f"Boots and crashes of {hosts} host") and page.locator(".psx select").count() == 0
    page.get_by_role("button", name="Zoom in").press("Enter")
    assert picture.get_attribute("aria-label") != before
    page.get_by_role("button", name="Whole time").click()
    page.locator(".psx rect.boot").first.hover()
    assert "ended by" in page.locator(".psx .tip").inner_text()
    page.locator(".psx a.crash").first.click()
    page.wait_for_url("**/explorer.html#crash=*")
    assert page.locator("section[id^='crash=']:visible").count() == 1
    context.close()


def test_an_exported_widget_is_clicked_offline(browser: Any, tmp_path: Path) -> None:
    shown = explore(hand_made.fleet(hosts=6, crashing=3))._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell(
        "psod.explore(fleet)", outputs=[nbformat.v4.new_output("display_data", data=shown)]
    )
    exported, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "exported.html").write_text(exported, encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((tmp_path / "exported.html").as_uri(), timeout=30_000)
    twin = page.frame_locator("iframe")
    assert twin.locator("p[aria-live]").inner_text() == "3 crashes on 3 hosts."
    twin.get_by_label("Host has").fill("esx01")
    assert twin.locator("p[aria-live]").inner_text() == "1 of 3 crashes on 1 host."
    twin.locator("a.crash").click()
    assert "Crash of esx01" in twin.locator("div.chosen").inner_text()
    context.close()


def test_an_address_of_nothing_is_said_as_text(explorer: Any) -> None:
    explorer.evaluate("location.hash = '#crash=' + encodeURIComponent('<img src=x onerror=window.planted=1>')")
    explorer.wait_for_selector(".psx [role=alert]")
    assert "No crash <img src=x onerror=window.planted=1> is in this evidence." in explorer.inner_text(
        ".psx [role=alert]"
    )
    assert explorer.evaluate("window.planted") is None and explorer.locator(".psx img").count() == 0


def test_only_the_module_of_the_policy_runs(made: Path, browser: Any) -> None:
    context = browser.new_context(offline=True)
    explorer = context.new_page()
    explorer.goto((made / "explorer.html").as_uri(), timeout=30_000)
    policy = explorer.get_attribute("meta[http-equiv]", "content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-inline'; script" not in policy
    ran = explorer.evaluate("""() => new Promise(done => { document.addEventListener('securitypolicyviolation', () => done('refused'));
        const made = document.createElement('script'); made.textContent = 'window.planted = 1'; document.body.append(made);
        setTimeout(() => done(window.planted), 500); })""")
    assert ran == "refused" and explorer.evaluate("window.planted") is None
    context.close()


def test_without_a_script_every_crash_is_on_the_page(made: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((made / "explorer.html").as_uri(), timeout=30_000)
    assert page.locator("section[id^='crash=']:visible").count() == 3
    assert page.locator("noscript a").count() == 3
    context.close()


def test_every_link_of_the_first_page_leads_somewhere(made: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((made / "index.html").as_uri(), timeout=30_000)
    hrefs = page.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))")
    page.close()
    assert {"brief.pdf", "writeup.html", "notebooks/05_pin_decision.html", "charts/rates.csv"} <= set(hrefs)
    assert [href for href in hrefs if not href.startswith("#") and not (made / href.partition("#")[0]).is_file()] == []
    assert {f"explorer.html#crash=c00000000000000{n}" for n in range(3)} <= set(hrefs)
    assert {f"explorer.html#host=esx0{n}" for n in range(6)} <= set(hrefs)


def test_keyboard_reaches_the_content_first(made: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((made / "index.html").as_uri(), timeout=30_000)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.close()


@pytest.mark.skipif(not shutil.which("pdftoppm"), reason="pdftoppm (poppler-utils) is not installed")
@pytest.mark.parametrize(("name", "most"), [("brief", 2), ("writeup", 4)])
def test_pdf_pages_are_neither_blank_nor_cut(made: Path, tmp_path: Path, name: str, most: int) -> None:
    subprocess.run(["pdftoppm", "-r", "40", "-gray", made / f"{name}.pdf", tmp_path / "p"], check=True, timeout=60)
    pages = sorted(tmp_path.glob("p*.pgm"))
    assert 1 <= len(pages) <= most
    for page in pages:
        _, size, _, pixels = page.read_bytes().split(b"\n", 3)
        width, height = (int(part) for part in size.split())
        rows = [pixels[row * width : (row + 1) * width] for row in range(height)]
        assert sum(min(row) < 128 for row in rows) > 20, f"{page.name} is blank"
        margin = round(width * 12 / 210)  # 12 of the 18 mm margin: nothing may stand there
        assert all(min(row[:margin]) > 200 and min(row[-margin:]) > 200 for row in rows), (
            f"{page.name} runs over its margin"
        )


def test_no_page_names_the_folder_that_it_was_made_in(made: Path) -> None:
    assert not [path.name for path in made.rglob("*.html") if str(made) in path.read_text()]
