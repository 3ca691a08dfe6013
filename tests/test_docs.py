"""What the pages name exists, and what exists is named."""

import re
import runpy
from pathlib import Path

import pytest
from typer.main import get_command

from stream.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_and_flag_a_page_names_exists(page):
    for command, rest in re.findall(r"anabranch ([a-z]+)([^\n`|]*)", page.read_text()):
        if command in ("demo", *COMMANDS):
            flags = {o for p in COMMANDS[command].params for o in p.opts}
            for flag in re.findall(r"(?<=\s)--[a-z-]+", rest.split("#")[0]):
                assert flag in flags, f"{page.name}: anabranch {command} has no {flag}"
        else:
            assert f"`anabranch {command}" not in page.read_text(), f"{page.name} names anabranch {command}"


def test_every_command_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert re.search(rf"anabranch (?:[a-z |]+ \| )?{command}\b", text) or f"| {command}" in text, command


def test_the_configuration_page_and_the_sample_say_what_the_settings_say():
    write = runpy.run_path(str(ROOT / "docs/write_configuration.py"))
    assert (ROOT / "docs/configuration.md").read_text() == write["page"](), "make docs writes it anew"
    assert (ROOT / "deploy/anabranch.toml").read_text() == write["sample"](), "make docs writes it anew"


def test_every_setting_is_explained():
    rows = re.findall(r"^\| `([\w.]+)` \| .* \| (.*?) ?\|$", (ROOT / "docs/configuration.md").read_text(), re.M)
    assert len(rows) > 100
    assert [name for name, what in rows if not what and not name.startswith("state.kinds.")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_make_target_and_path_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, f"{page.name} names make {target}"
    for path in re.findall(r"`((?:state|model|stream|tests|docs|examples|deploy|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


SETTINGS = set(re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs/configuration.md").read_text(), re.M))
SECTIONS = {name.rpartition(".")[0] for name in SETTINGS}
TOLD_BY_STATUS = {"trainer.doing", "trainer.failure", "trainer.failures", "model.age_s"}
"""Keys of `anabranch status --json` that look like settings."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_setting_and_section_a_page_names_exists(page):
    first = {section.partition(".")[0] for section in SECTIONS} - {""}
    text = page.read_text()
    for name, key in re.findall(r"`(([a-z]+)\.\w+(?:\.\w+)*)(?: = [^`]*)?`", text):
        if key in first and name not in TOLD_BY_STATUS and not name.startswith("state.kinds."):
            assert name in SETTINGS or name in SECTIONS, f"{page.name} names the setting {name}"
    for section in re.findall(r"`\[([a-z_.]+)\]", text):
        assert section in SECTIONS | {"state.kinds"} or section.startswith("state.kinds."), f"{page.name}: [{section}]"
    for variable in re.findall(r"ANABRANCH_([A-Z]+__[A-Z_]+)", text):
        assert variable.lower().replace("__", ".") in SETTINGS, f"{page.name} names ANABRANCH_{variable}"
