"""Pages as a browser shows them: headless Chromium, no other dependency. Debian's package is `chromium`."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1280, 390)
# A frame of srcdoc is of the same origin as the page around it, so that its size can be read; its window is as wide as the frame.
MEASURE = """<script>
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const root = frame.contentDocument.documentElement, inner = frame.contentWindow;
    return {page: frame.name, width: inner.innerWidth, content: root.scrollWidth, room: root.clientWidth,
            fetched: inner.performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:"))};
  });
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""
CONSOLE = re.compile(r":CONSOLE[:(].*")


def path() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def problems(pages: Mapping[str, Path]) -> list[str]:
    """What is wrong with the pages, by name: messages on the console, something fetched, content wider than the window of WIDTHS."""
    frames = "".join(_frame(name, page, width) for name, page in pages.items() for width in WIDTHS)
    found, said = _shown(f"<!doctype html><meta charset=utf-8><body>{frames}{MEASURE}</body>")
    assert [frame["width"] for frame in found] == list(WIDTHS) * len(pages)
    wide = [f"{f['page']}: {f['content']} pixels of content in {f['room']}" for f in found if f["content"] > f["room"]]
    return said + wide + [f"{f['page']}: fetched {name}" for f in found for name in f["fetched"]]


def _frame(name: str, page: Path, width: int) -> str:
    style, text = f"width:{width}px;height:900px;border:0", html.escape(page.read_text(encoding="utf-8"))
    return f'<iframe name="{html.escape(name)}" style="{style}" srcdoc="{text}"></iframe>'


def _shown(page: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What the page measured, and what the console said."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"]
        command = [str(path()), *options, f"--user-data-dir={folder}/profile", "--window-size=1400,1000", "--dump-dom", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    measured = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert measured, done.stderr[-2000:]
    return json.loads(html.unescape(measured.group(1))), CONSOLE.findall(done.stderr)
