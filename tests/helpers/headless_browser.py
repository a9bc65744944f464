"""A page in headless Chromium at the width of a phone: what plays, what overflows, what the console says."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE_WIDTH = 390

# Runs inside the page, which stands in a frame: Chromium's own window is never narrower than 500 pixels.
PROBE = """<script>
addEventListener("load", async () => {
  const videos = [...document.querySelectorAll("video")];
  for (const video of videos) {
    video.scrollIntoView();
    try { await video.play(); } catch (error) { console.error("does not play: " + error.message); }
    await new Promise(done => setTimeout(done, 200));
  }
  const names = [...document.querySelectorAll("tr.model td:first-child")].map(cell => cell.offsetWidth);
  const plays = video => !video.error && video.videoWidth > 0 && video.currentTime > 0;
  parent.postMessage({ videos: videos.length, playing: videos.filter(plays).length, width: innerWidth,
    content_width: document.documentElement.scrollWidth,
    narrowest_name: Math.min(...names), widest_name: Math.max(...names),
    images: [...document.images].filter(image => image.naturalWidth > 0).length }, "*");
});
</script></body>"""
FRAME = """<!doctype html><body style="margin:0"><iframe src="page.html" width="{width}" height="844"
 style="border:0"></iframe><script>addEventListener("message", event => {{
  document.documentElement.dataset.found = JSON.stringify(event.data); }});</script></body>"""


class Visit(NamedTuple):
    """found: what PROBE saw; console: the lines of the console, one string each."""

    found: dict[str, int]
    console: list[str]


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def visit(browser: str, page: str, folder: Path, seconds: int = 20) -> Visit:
    """Open a page of HTML and play its videos; `folder` is scratch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "page.html").write_text(page.replace("</body>", PROBE), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=PHONE_WIDTH), encoding="utf-8")
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--autoplay-policy=no-user-gesture-required", "--window-size=600,900",
        f"--virtual-time-budget={1000 * seconds}", "--dump-dom", (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[:500] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(json.loads(html.unescape(found[1])), console)
