"""Debian's Chromium, driven by playwright; axe-core from npm. What is missing is said, and its tests are skipped."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), "")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
AXE = "axe-core@4.14.1"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def missing() -> str | None:
    """What a page test needs and this machine does not have; None: nothing."""
    if not CHROMIUM:
        return "no chromium on the PATH: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no playwright: pip install '.[ops]'"
    return None


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Any, *, dark: bool = False, phone: bool = False, scale: float = 1) -> Iterator[Any]:
    """A page that fails its test for whatever the console of the browser complains about."""
    context = browser.new_context(
        viewport=PHONE if phone else DESK, color_scheme="dark" if dark else "light", device_scale_factor=scale,
        bypass_csp=False, reduced_motion="reduce", timezone_id="Europe/Berlin", locale="en-GB",
    )  # fmt: skip
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: complaints.append(sent.url) if "://127.0.0.1:" not in sent.url else None)
    page.complaints = complaints
    try:
        yield page
        # A part that came late on a busy machine is loaded again.
        assert [c for c in complaints if "htmx:error: timeout" not in c] == []
    finally:
        context.close()


def axe() -> str:
    """The source of axe-core, kept in the user's cache. Skips the test where npm does not have it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "anabranch-tests"
    file = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists():
        if shutil.which("npm") is None:
            pytest.skip("no npm on the PATH: axe-core cannot be had")
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-save", "--ignore-scripts", "--prefix", str(folder), AXE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm has no {AXE}: {done.stderr[-300:]}")
    return file.read_text()


def violations(page: Any, source: str) -> list[str]:
    """What axe finds on the page, by rule and element. The evaluation needs no right that the page's policy denies."""
    page.evaluate(source)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found["violations"] for node in rule["nodes"]]
