"""Headless Chromium, where there is one: what becomes of a page, told by a script added to a copy of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
)

_ASK = """<script>addEventListener("load", async () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  document.body.style.width = "WIDTHpx";  // a window of Chromium is not as narrow as a phone
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.allSettled(images.map(image => image.decode()));
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify({
    images: images.length,
    broken: images.filter(image => !image.naturalWidth).length,
    drawn: [...document.querySelectorAll("use")].filter(use => use.getBoundingClientRect().width).length,
    clipped: [...document.querySelectorAll("caption span")]
      .filter(span => span.getBoundingClientRect().right > WIDTH).map(span => span.textContent),
    seen: [...document.querySelectorAll("section")]
      .filter(section => section.getBoundingClientRect().height > 40).map(section => section.id),
    overflow: document.body.scrollWidth - WIDTH,
    background: getComputedStyle(document.body).backgroundColor,
  });
  document.body.append(told);
})</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: the script's answers, and what it wrote to its console."""

    told: dict[str, Any]
    console: list[str]


def look(page: Path, folder: Path, *, width: int = 1280, dark: bool = False) -> Seen:
    """Open ``page``, ``width`` pixels wide; ``folder`` is for the browser's own files."""
    assert CHROMIUM is not None
    copy = folder / "asked.html"
    ask = _ASK.replace("WIDTH", str(width))
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{ask}</body>"), encoding="utf-8")
    profile = folder / "profile"
    flags = [*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900"]
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [CHROMIUM, *flags, scheme, "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shutil.rmtree(profile, ignore_errors=True)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, f"the page did not load\n{done.stderr}"
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(json.loads(html.unescape(told[1])), console)
