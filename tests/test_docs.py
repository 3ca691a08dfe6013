"""Everything that the pages name exists, and every command and setting is documented."""

import ast
import importlib.util
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.main import get_command

from stream.cli.app import app
from stream.config import TopicSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]

by_path = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@by_path
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


def test_the_configuration_page_and_the_sample_match_the_settings():
    write = runpy.run_path(str(DOCS / "write_configuration.py"))
    assert (DOCS / "configuration.md").read_text() == write["page"](), "run `make docs`"
    assert (ROOT / "deploy/anabranch.toml").read_text() == write["sample"](), "run `make docs`"


def test_the_page_of_metrics_matches_the_catalogue():
    write = runpy.run_path(str(DOCS / "write_metrics.py"))
    assert (DOCS / "metrics.md").read_text() == write["page"](), "run `make docs`"


def test_every_setting_is_explained():
    rows = re.findall(r"^\| `([\w.]+)` \| .* \| (.*?) ?\|$", (DOCS / "configuration.md").read_text(), re.M)
    assert len(rows) > 100
    assert [name for name, text in rows if not text and not name.startswith("state.kinds.")] == []


@by_path
def test_every_make_target_and_path_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, f"{page.name} names make {target}"
    for path in re.findall(r"`((?:state|model|stream|tests|docs|examples|deploy|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@by_path
def test_every_module_a_page_runs_exists(page):
    for module in re.findall(r"python -m ((?:benchmarks|tests|stream)[\w.]*)", page.read_text()):
        assert importlib.util.find_spec(module.rstrip(".")), f"{page.name} runs {module}"


@by_path
def test_every_link_has_a_target_page_and_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            assert heading in anchors(target), f"{page.name} links to {link}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


DOCUMENTED_SETTINGS = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "configuration.md").read_text(), re.M))
SECTIONS = {name.rpartition(".")[0] for name in DOCUMENTED_SETTINGS}
STATUS_KEYS = {
    "trainer.doing", "trainer.failure", "trainer.failures", "model.age_s",
    "worker.doing", "worker.too_many_requests", "worker.unsendable", "worker.lost_dead_letters",
}  # fmt: skip
"""Keys of `anabranch status --json` that look like settings."""
CHART = json.loads((ROOT / "deploy/helm/anabranch/values.schema.json").read_text())


def names_below(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of a JSON schema's properties."""
    for name, inner in schema.get("properties", {}).items():
        yield prefix + name
        yield from names_below(inner, f"{prefix}{name}.")


CHART_VALUES = set(names_below(CHART))
"""Values of the chart, which look like settings."""
REMOVED_SETTINGS = set(re.findall(r"^\| `([\w.]+)` \| removed\b", (ROOT / "CHANGELOG.md").read_text(), re.M))
"""Settings that the changelog lists as removed."""


@by_path
def test_every_setting_and_section_a_page_names_exists(page):
    first = {section.partition(".")[0] for section in SECTIONS} - {""}
    text = page.read_text()
    known = (
        DOCUMENTED_SETTINGS
        | SECTIONS
        | STATUS_KEYS
        | CHART_VALUES
        | (REMOVED_SETTINGS if page.name == "CHANGELOG.md" else set())
    )
    for name, key in re.findall(r"`(([a-z]+)\.\w+(?:\.\w+)*)(?: = [^`]*)?`", text):
        if key in first and not name.startswith("state.kinds."):
            assert name in known, f"{page.name} names the setting {name}"
    for section in re.findall(r"`\[([a-z_.]+)\]", text):
        assert section in SECTIONS | {"state.kinds"} or section.startswith("state.kinds."), f"{page.name}: [{section}]"
    for variable in re.findall(r"ANABRANCH_([A-Z]+__[A-Z_]+)", text):
        assert variable.lower().replace("__", ".") in known, f"{page.name} names ANABRANCH_{variable}"


def test_no_removed_setting_exists():
    assert not REMOVED_SETTINGS & DOCUMENTED_SETTINGS


def test_the_index_links_to_every_page_of_its_folder():
    for folder in (DOCS, DOCS / "decisions"):
        index = (folder / "README.md").read_text()
        for page in folder.glob("*.md"):
            assert page.name == "README.md" or f"]({page.name})" in index, f"{folder.name}/README.md omits {page.name}"


@pytest.mark.parametrize("record", DECISIONS, ids=lambda record: record.name)
def test_a_decision_has_context_decision_and_consequences(record):
    lines = record.read_text().splitlines()
    assert re.fullmatch(rf"# {record.name[:4]}\. .+", lines[0])
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## Context", "## Decision", "## Consequences"]
    assert 10 <= len(lines) <= 30


def test_decisions_are_numbered_without_gaps():
    assert [int(record.name[:4]) for record in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_first_three_pages_can_be_read_in_fifteen_minutes():
    first = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", DOCS / "model.md"]
    assert sum(len(page.read_text().split()) for page in first) <= 4000
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 200


CHECKED_PAGES = [page for page in PAGES if page.name not in ("CHANGELOG.md", "configuration.md", "metrics.md")]


@pytest.mark.parametrize("page", CHECKED_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_have_twenty_words_on_average(page):
    lengths = [len(sentence.split()) for sentence in sentences(page.read_text())]
    assert sum(lengths) <= 20 * len(lengths), f"{sum(lengths) / len(lengths):.1f} words"


def sentences(text: str) -> list[str]:
    """The sentences of a page's paragraphs and lists: no code, tables or headings.

    >>> sentences("# Title\\n\\nIt works. It is\\nfast.\\n\\n    $ make\\n\\n- A list.")
    ['It works.', 'It is fast.', 'A list.']
    """
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    kept = [line for line in text.splitlines() if not re.match(r"    |\||#", line)]
    paragraphs = re.split(r"\n\s*\n|\n(?=- |\d+\. )", "\n".join(kept))
    plain = (" ".join(re.sub(r"^(- |\d+\. )", "", paragraph.strip()).split()) for paragraph in paragraphs)
    return [sentence for p in plain if p for sentence in re.split(r"(?<=[.?!:;])\s+(?=[A-Z`*\[])", p)]


PLACEHOLDERS = re.compile(
    r"…|^the (?:worker|trainer)(?= ended)|worker(?= \(process)|topic_id|cluster|sequence_events"
    r"|No space left on device|Corruption|HOST:PORT|'x'|'plaintext'|'clicks'|\b[A-Z]\b|[\d.]+(?: s\b)?"
)
"""Parts of a line in docs/faults.md that are values, or come from RocksDB or the system."""


def test_every_line_in_faults_is_a_message_of_the_code():
    code = "\n".join(" ".join(text.split()) for text in strings_of(ROOT / "state", ROOT / "stream"))
    rows = [row.split(" | ") for row in (DOCS / "faults.md").read_text().splitlines() if row.startswith("| ")]
    shown = [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row[1]) if " " in quoted]
    parts = [(line, part.strip(" ;:,()")) for line in shown for part in PLACEHOLDERS.split(line)]
    assert len(shown) > 20
    assert [f"{part!r} of {line!r}" for line, part in parts if part not in code] == []


def strings_of(*folders: Path) -> list[str]:
    """Every string constant, the pieces of f-strings too."""
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


THREATS = [
    [cell.strip() for cell in row.strip("|").split("|")]
    for table in re.findall(r"^\|.*\| test \|\n\|[-|]+\n((?:\|.*\n)+)", (DOCS / "threats.md").read_text(), re.M)
    for row in table.splitlines()
]


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0][:60])
def test_every_threat_has_a_test_that_exists_or_a_reason_for_none(row):
    named = re.fullmatch(r"(tests/[\w/]+\.py)::(test_\w+)", row[-1])
    if named is None:
        assert re.fullmatch(r"no test: \w.+", row[-1])
    else:
        assert re.search(rf"^(?:async )?def {named[2]}\(", (ROOT / named[1]).read_text(), re.M), row[-1]


def test_the_page_of_erasure_names_what_every_topic_still_holds():
    erasure = (DOCS / "time.md").read_text().partition("\n## Erasure\n")[2]
    rows = "".join(row.split("|")[1] for row in erasure.splitlines() if row.startswith("| `"))
    names = [name for name in msgspec.structs.asdict(TopicSettings()).values() if isinstance(name, str) and name]
    assert [name for name in names if f"`{name}`" not in rows] == []
