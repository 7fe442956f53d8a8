"""The report in a real browser: nothing leaves the page, nothing fails, every picture and table is seen."""

import json
import re
import shutil
import subprocess

import pytest

from tests import bias_frames

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# Runs after everything has loaded and puts what a reader would see into the title.
PROBE = """
<script>addEventListener("load", () => {
  const seen = e => e.getClientRects().length > 0 && e.offsetHeight > 0;
  const pictures = [...document.images].map(i => i.complete && i.naturalWidth > 0 && seen(i));
  const tables = [...document.querySelectorAll("table")].map(t => seen(t) || t.closest("details") !== null);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  // The browser's own background look-ups are not the page's: ask the page what it requested.
  const asked = performance.getEntriesByType("resource").map(e => e.name.slice(0, 60));
  document.title = "PROBE" + JSON.stringify({pictures, tables, wide, asked});
})</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_report_opens_whole_and_asks_for_nothing(tree, tmp_path):
    out = tmp_path / "out"
    bias_frames.campaign(tree, temperatures=(-10, 0, 10), n=5)
    assert bias_frames.run("--basepath", tree, "--output-dir", out, plots="summary") == 0
    report = (out / "report.html").read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(report.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    browser = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", "--window-size=1200,900", "--virtual-time-budget=5000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    title = re.search(r"<title>PROBE(.*?)</title>", browser.stdout)
    assert title, f"the page's script did not run: {browser.stderr[-2000:]}"
    seen = json.loads(title[1])
    assert len(seen["pictures"]) == report.count("<img ") >= 10
    assert all(seen["pictures"])
    assert len(seen["tables"]) >= 4
    assert all(seen["tables"])
    assert seen["wide"] <= 0, "the page scrolls sideways"
    assert "CONSOLE" not in browser.stderr, browser.stderr
    leaving = [url for url in seen["asked"] if not url.startswith("data:")]
    assert not leaving
