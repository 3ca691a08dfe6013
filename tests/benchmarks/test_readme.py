"""benchmarks/README.md names commands that start, options and paths that exist, and figures from the result files."""

import importlib
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.global_temporal import GRAPH_ALONE, SERVED, VARIANTS
from benchmarks.quality.global_temporal_report import mean_of_seeds
from benchmarks.quality.product_defaults import MODELS, RESULTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "benchmarks/README.md").read_text()
RESULT_FILES = ROOT / "benchmarks/results"


def commands() -> list[list[str]]:
    """Every `python -m` command of the page, in backticks or in a code block, with its arguments."""
    blocks = "\n".join(line for line in README.splitlines() if line.startswith("    ")).replace("\\\n", " ")
    prefixes = dict(re.findall(r'([A-Z]+)="(python -m [^"]+)"', blocks))
    for name, command in prefixes.items():
        blocks = re.sub(rf"\${name}\b", lambda _, command=command: command, blocks)
    variants = re.search(r"VARIANTS='(.*)'", blocks)
    blocks = blocks.replace("$VARIANTS", variants[1] if variants else "")
    found = re.findall(r"python -m ([^`\n]+)", "\n".join(re.findall(r"`(python -m [^`]+)`", README)))
    for line in blocks.splitlines():
        if "=" not in line.split("python -m")[0]:
            found += [part.split("python -m ")[1] for part in re.split(r'"?; ', line) if "python -m " in part]
    return [shlex.split(command.rstrip('"') if command.count('"') % 2 else command) for command in found]


COMMANDS = commands()
MODULES = sorted({command[0] for command in COMMANDS})


def entry(module: str) -> str:
    """The module that `python -m` runs."""
    spec = importlib.util.find_spec(module)
    return f"{module}.__main__" if spec and spec.submodule_search_locations else module


def benchmarks_with_a_main() -> set[str]:
    names = set()
    for file in (ROOT / "benchmarks").rglob("*.py"):
        if '__name__ == "__main__"' in file.read_text():
            names.add(".".join(file.relative_to(ROOT).with_suffix("").parts))
    return names


@pytest.mark.parametrize("module", MODULES)
def test_every_command_starts(module):
    assert importlib.util.find_spec(entry(module)), f"benchmarks/README.md names python -m {module}"
    imported = importlib.import_module(module)
    assert callable(imported.main)


@pytest.mark.parametrize("module", sorted({command[0] for command in COMMANDS if "--" in " ".join(command[1:])}))
def test_every_option_of_a_command_exists(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    assert ended.value.code == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for command in COMMANDS:
        if command[0] == module:
            assert {argument for argument in command if argument.startswith("--")} <= options, command


def test_every_variant_of_the_quality_benchmark_exists():
    known = {*VARIANTS, *SERVED, *GRAPH_ALONE}
    measured = [command for command in COMMANDS if command[0] == "benchmarks.quality.global_temporal"]
    named = [argument for command in measured if "--variants" in command for argument in variants_of(command)]
    assert len(named) > 50
    assert set(named) <= known


def variants_of(command: list[str]) -> list[str]:
    rest = command[command.index("--variants") + 1 :]
    return rest[: next((n for n, argument in enumerate(rest) if argument.startswith("--")), len(rest))]


def test_every_benchmark_is_on_the_page():
    started_by_another = {"benchmarks.speed.ingest_rivals"}
    assert benchmarks_with_a_main() - started_by_another <= set(MODULES)


def test_every_path_on_the_page_exists_and_every_result_is_on_the_page():
    named = set(re.findall(r"`((?:benchmarks|docs|tests)/[\w./-]+)`", README))
    for path in named | {str(Path("benchmarks") / link) for link in re.findall(r"\]\(([^)#]+)\)", README)}:
        assert (ROOT / path).exists(), f"benchmarks/README.md names {path}"
    for file in RESULT_FILES.rglob("*"):
        path = file.relative_to(ROOT)
        if file.is_file():
            assert any(str(part) in named or f"{part}/" in named for part in (path, *path.parents)), path


def test_every_make_target_on_the_page_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets


def cells(title: str, section: str) -> list[str]:
    """The cells of a row in the section with this heading."""
    text = README[README.index(f"\n## {section}\n") :]
    found = re.search(rf"^\| {re.escape(title)} \| (.*) \|$", text, re.M)
    assert found, f"no row {title} under {section}"
    return found[1].split(" | ")


def test_the_defaults_table_has_the_figures_of_its_file():
    lines = [json.loads(text) for text in (ROOT / RESULTS).read_text().splitlines()]
    for model, title in MODELS.items():
        for data, cell in zip(
            dict.fromkeys(line["data"] for line in lines), cells(title, "Quality: the product's defaults"), strict=True
        ):
            found = mean_of_seeds(
                [100 * line["ndcg@10"][model]["unfiltered"] for line in lines if line["data"] == data]
            )
            assert found.removesuffix(" ± 0.00") == cell


@pytest.mark.parametrize(
    ("title", "variant"),
    [
        ("SASRec, 60 epochs", "SASRec"),
        ("CREATE, 20 + 33 epochs", "CREATE"),
        ("SASRec + live graph", "SASRec + live graph"),
        ("CREATE + live graph", "CREATE + live graph"),
        ("live graph alone", "live graph alone"),
        ("CREATE + graph as at the split", "CREATE + graph as at the split"),
        ("item-kNN", "item-kNN"),
        ("transitions", "transitions"),
    ],
)
def test_the_quality_table_has_the_figures_of_its_files(title, variant):
    shown = [cell.split(" ")[0] for cell in cells(title, "Quality: recorded data")]
    found = []
    for data in ("amazon-beauty", "amazon-sports"):
        lines = [json.loads(text) for text in (RESULT_FILES / "quality" / f"{data}.jsonl").read_text().splitlines()]
        for seen in ("filtered", "unfiltered"):
            runs = [line["scores"][f"successive, {seen}"]["ndcg@10"] for line in lines if line["variant"] == variant]
            found.append(f"{100 * np.mean(runs):.2f}")
    assert found == shown
