"""Scripts, styles and pictures: small, whole, ours, and kept by a browser for a year."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from stream.console.assets import FOLDER, Assets
from tests.console.browse import console

MAX_COMPRESSED_BYTES = 60_000
PUBLISHED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""SHA-256 of each file in its npm package."""


def test_all_assets_together_are_small():
    assert 0 < Assets().compressed_bytes <= MAX_COMPRESSED_BYTES


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_of_others_is_as_published_and_has_its_licence(name):
    file = FOLDER / "vendor" / name
    assert hashlib.sha256(file.read_bytes()).hexdigest() == PUBLISHED[name]
    licence = file.parent / f"{name.split('.')[0]}.LICENSE.txt"
    assert "Permission to use" in (text := licence.read_text()) or "Permission is hereby granted" in text
    assert f"`{name}`" in (file.parent / "README.md").read_text()


def test_a_browser_keeps_an_asset_for_a_year_under_a_name_with_its_hash(tmp_path):
    with console(tmp_path) as browser:
        paths = re.findall(r'(?:src|href)="(/assets/[^"]+)"', browser.get("/").html)
        assert len(paths) == 7
        for path in paths:
            page = browser.get(path, Accept_Encoding="gzip")
            assert page.status == 200
            assert page.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert page.headers["Content-Encoding"] == "gzip"
            assert re.search(r"\.[0-9a-f]{12}\.(js|css|svg)$", path)
            plain = browser.get(path, Accept_Encoding="identity")
            assert "Content-Encoding" not in plain.headers
            assert plain.html == page.html
        assert browser.get("/assets/console.000000000000.css").status == 404
        assert browser.get("/assets/..%2Froutes.py").status == 404


def test_our_scripts_name_no_other_site_and_run_no_text():
    for file in FOLDER.glob("*.js"):
        text = file.read_text()
        assert not re.search(r"https?://|\beval\(|innerHTML|outerHTML|insertAdjacentHTML|new Function", text), file.name
    assert not re.search(r"url\(|@import|https?://", (FOLDER / "console.css").read_text())


def test_the_wheel_has_the_templates_and_the_assets():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["stream.console"]
    package = FOLDER.parent
    packed = {file for pattern in patterns for file in package.glob(pattern)}
    needed = {f for folder in ("static", "templates") for f in (package / folder).rglob("*") if f.is_file()}
    assert needed
    assert needed <= packed
