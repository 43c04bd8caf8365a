"""The explorer in a real JupyterLab and a real browser: filtered, a crash chosen, tagged; log text stays text in the DOM."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from views import hand_made
from views.serving import chromium_page, jupyterlab, needs_chromium, run_all

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
pytestmark = [pytest.mark.slow, needs_chromium]
ATTACK = (
    "<img src=x onerror=window.planted=1></script><script>window.planted=1</script>"
    r" ![a](javascript:window.planted=1) $\input{x}$ \(x\) #read(x) =cmd|'/C calc'!A0"
)
CELL = """
from psodlib.fleet import Fleet
from psodlib.views.explore import explore
explore(Fleet.open("store"), notes="store")
"""
# Set where somebody wants to look at the pictures: a folder that outlives the test.
PICTURES = os.environ.get("PSOD_PICTURES")


def planted() -> Any:
    """A small fleet with two signatures, markup in the words of one host's crash."""
    fleet = hand_made.fleet(hosts=9, crashing=6, words={"detail": ATTACK})
    crashes, frames = fleet.crashes, fleet.frames
    crashes.loc[3:, "signature"] = "bnx2x_start_xmit"
    crashes.loc[4:, "kind"] = "spin_count"
    bad = crashes.index[-1]
    for name in ("message", "world_name", "guilty_function", "driver_version", "source", "signature", "sha256"):
        crashes.loc[bad, name] = f"{name} {ATTACK}"
    crashes.loc[bad, "time"] = pd.Timestamp("2026-06-01", tz="UTC")
    frames.loc[frames["crash_id"] == crashes.loc[bad, "crash_id"], "function"] = ATTACK
    return fleet


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """JupyterLab on loopback with a token, and its folder: a notebook of one cell, a saved fleet."""
    work = tmp_path_factory.mktemp("lab")
    planted().save(work / "store")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, work / "explore.ipynb")
    with jupyterlab(work) as (root, token):
        yield f"{root}/lab/tree/explore.ipynb?token={token}", work


@pytest.fixture(scope="module")
def page(lab: tuple[str, Path]) -> Iterator[Any]:
    """The notebook, run, with the explorer on the screen."""
    with chromium_page(width=1440, height=2300) as opened:
        opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
        run_all(opened, lab[0])
        playwright.expect(opened.locator(".psod h4").first).to_be_visible(timeout=40_000)
        yield opened


def _picture(page: Any, folder: Path, name: str) -> None:
    page.screenshot(path=Path(PICTURES or folder) / f"{name}.png", full_page=True)


def _filter(page: Any, label: str) -> Any:
    return page.locator(".psx label", has=page.get_by_text(label, exact=True)).locator("select")


def test_a_filter_narrows_the_list_and_the_other_filters(page: Any, lab: tuple[str, Path]) -> None:
    expect = playwright.expect
    expect(page.get_by_text("6 crashes on 6 hosts.")).to_be_visible()
    _picture(page, lab[1], "lab-light")
    _filter(page, "Kind").select_option(label="page fault (4)")
    expect(page.get_by_text("4 of 6 crashes on 4 hosts.")).to_be_visible()
    offered = _filter(page, "Signature").locator("option").all_text_contents()
    assert [re.sub(r".*\((\d+)\)", r"\1", text) for text in offered] == ["4", "3", "1"]
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_text("6 crashes on 6 hosts.")).to_be_visible()


def test_log_text_is_text_in_the_live_page(page: Any) -> None:
    page.locator(".psx td a").first.click()
    playwright.expect(page.locator(".psod table").first).to_contain_text(f"message {ATTACK}")
    assert page.evaluate("window.planted") is None
    # neither markup nor mathematics was made of it, and no link leads away
    for part in (".psx", ".psod"):
        assert (
            page.locator(f"{part} img, {part} script, {part} mjx-container, {part} .MathJax, {part} [onerror]").count()
            == 0
        )
        hrefs = page.locator(f"{part} a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        assert all(href.startswith("#") for href in hrefs)


def test_a_chosen_crash_is_shown_tagged_noted_and_its_link_copied(page: Any, lab: tuple[str, Path]) -> None:
    expect = playwright.expect
    page.locator('.psx a.crash[href="#crash=c000000000000001"]').click()
    expect(page.locator(".psod table").first).to_contain_text("#PF Exception 14 in world 9607609:vmklinux_9:h")
    expect(page.locator(".psod tr.marked").first).to_contain_text("◀ guilty")
    page.locator("select", has=page.locator("option", has_text="Common tags…")).select_option(label="duplicate")
    page.get_by_placeholder("Note", exact=True).fill("seen in Lab")
    page.get_by_role("button", name="Save tags and note").click()
    expect(page.get_by_text("Saved in store/crash_notes.json.")).to_be_visible()
    expect(page.locator(".psx tr.chosen")).to_contain_text("[duplicate]")
    saved = json.loads((lab[1] / "store" / "crash_notes.json").read_text())
    [(crash_id, note)] = saved.items()
    assert (note["tags"], note["text"]) == (["duplicate"], "seen in Lab")
    assert crash_id == "c000000000000001"
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith("/explore.ipynb#crash=c000000000000001") and "token" not in copied


def test_it_reads_in_dark_too(page: Any, lab: tuple[str, Path]) -> None:
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    playwright.expect(page.locator("body[data-jp-theme-light=false]")).to_be_attached()
    playwright.expect(page.locator("#jupyterlab-splash")).to_have_count(0, timeout=20_000)
    ink, paper = page.locator(".psx:has(svg)").evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    )
    assert _light(ink) - _light(paper) > 100
    _picture(page, lab[1], "lab-dark")


def _light(colour: str) -> float:
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3
