"""In a real browser the report renders, fits a phone and a desk, and logs no error."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from figure_root import FigureRoot
from pages import seen

from analysis import load
from analysis.report import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--dump-dom",
)
WIDTHS = (390, 1280)

# A window is never narrower than 500 px, a frame may be. The page itself runs no script; this one around it does.
FRAMES = """<!DOCTYPE html><body>%s<pre id="found"></pre><script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, broken = [], root = page.documentElement;
    const links = [...page.querySelectorAll("a[href]")];
    for (const link of links) {
      const target = page.getElementById(link.getAttribute("href").slice(1));
      frame.contentWindow.scrollTo(0, 0);
      link.click();
      target.scrollIntoView();
      if (target.getClientRects().length === 0 || Math.abs(target.getBoundingClientRect().top) > 800)
        broken.push(link.href);
    }
    page.querySelectorAll("details").forEach(one => one.open = true);
    const names = [...page.querySelectorAll('.mmkd-scroll tbody th[scope="row"]')].map(name => {
      const scroll = name.closest(".mmkd-scroll");
      scroll.scrollLeft = 10_000;
      return name.getBoundingClientRect().left - scroll.getBoundingClientRect().left;
    });
    const order = [".mmkd-verdict", ".result svg", "#contents", ".mmkd"].map(one => page.querySelector(one));
    const opens = order.every((one, number) => !number ||
      order[number - 1].compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
    const figures = [...page.querySelectorAll("svg")].map(one => one.getBoundingClientRect());
    return { names, opens, shown: root.clientWidth, needed: root.scrollWidth, links: links.length, broken,
             figures: figures.length, empty: figures.filter(box => box.width < 100 || box.height < 100).length };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: the report is not looked at in a browser")
def test_it_fits_a_phone_and_a_desk_its_links_work_and_nothing_is_logged(tmp_path: Path) -> None:
    root, rng = FigureRoot(tmp_path / "runs"), np.random.default_rng(0)
    root.row("none", "Student without KD", rng)
    root.row("crd", "CRD on attention maps and_a_very_long_word_without_any_place_to_break_it_anywhere", rng)
    root.write()
    text = report(load(root.path, cache=False), kinds=("learning-loss", "forest", "confusion"))
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    frames = "".join(f'<iframe src="report.html" style="width:{w}px;height:800px;border:0"></iframe>' for w in WIDTHS)
    (tmp_path / "frames.html").write_text(FRAMES % frames, encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not logged
    found = json.loads(seen(done.stdout.partition('<pre id="found">')[2].partition("</pre>")[0]).text)
    for width, page in zip(WIDTHS, found, strict=True):
        assert page["needed"] <= page["shown"] <= width
        assert page["links"] > 10
        assert page["broken"] == []
        assert page["names"]
        assert all(abs(left) < 2 for left in page["names"])  # they stay where the table scrolls
        assert page["opens"]  # with the verdict and the forest plot, contents and table follow
        assert page["figures"] == 4
        assert page["empty"] == 0
