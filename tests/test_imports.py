"""Imports go in one direction, and `--help` imports no large library."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "state": {"model", "stream", "torch", "torch_geometric", "aiokafka", "kafka", "faust"},
    "model": {"stream", "aiokafka", "kafka", "faust", "rocksdict"},
    "stream": {"rocksdict"},
}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def imported_modules(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in the file. `from a.b import c` gives a.b.c."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_lower_packages(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        assert not imported(file) & FORBIDDEN[package], file


def test_imports_have_no_cycles():
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for package in FORBIDDEN
        for file in (ROOT / package).rglob("*.py")
        if file.name != "__init__.py"
    }
    needs: dict[str, set[str]] = {}
    for name, file in files.items():
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        taken = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        needs[name] = (taken | {str(node.module) for node in nodes}) & files.keys()
    assert sum(map(len, needs.values())) > len(files)
    graphlib.TopologicalSorter(needs).prepare()


LEVELS = {
    "model": [
        {"errors", "metrics", "settings", "export_pyg"},
        {"encoders"},
        {"losses", "ranker"},
        {"ranking"},
        {"fusion_weights"},
        {"learning"},
        {"evaluation"},
    ],
    "stream": [
        {"errors", "times", "printable", "files", "live_metrics", "config", "load_config", "logs"},
        {"kafka"},
        {"stores"},
        {"http", "members", "metrics", "tracing"},
        {"worker", "trainer"},
        {"operate"},
        {"serve"},
        {"console"},
        {"local"},
        {"cli"},
    ],
}
"""Sub-packages and modules, the lowest level first. A file may import from its own sub-package and lower levels."""


@pytest.mark.parametrize("package", LEVELS)
def test_a_sub_package_imports_no_sub_package_of_the_same_or_a_higher_level(package):
    level = {name: n for n, names in enumerate(LEVELS[package]) for name in names}
    present = {f.stem for f in (ROOT / package).iterdir() if f.suffix == ".py" or (f / "__init__.py").exists()}
    assert present - {"__init__", "__pycache__"} == level.keys(), "each sub-package needs a level"
    for file in sorted((ROOT / package).rglob("*.py")):
        own = file.relative_to(ROOT / package).with_suffix("").parts[0]
        if own == "__init__":
            continue
        for module in imported_modules(file):
            top, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            if top == package and other and other != own:
                assert level[other] < level[own] or level[own] == 0, f"{file.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("package", LEVELS)
def test_a_package_has_at_most_eight_modules_outside_its_sub_packages(package):
    assert len([f for f in (ROOT / package).glob("*.py") if f.name != "__init__.py"]) <= 8


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_that_is_opened_can_run_code(package):
    for file in sorted((ROOT / package).rglob("*.py")):
        assert not imported(file) & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, file
        assert not re.search(r"torch\.load\(|allow_pickle=True", file.read_text()), file


KAFKA_CLIENT = re.compile(r"(AIO)?Kafka(Admin)?(Client|Consumer|Producer)$")


def test_every_kafka_client_gets_its_arguments_from_one_module():
    calls = []
    for file in sorted((ROOT / "stream").rglob("*.py")):
        if file.name == "connection.py":
            continue
        assert not re.search("bootstrap_servers|kafka://|ssl_context=", file.read_text()), file
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and KAFKA_CLIENT.match(ast.unparse(node.func)):
                given = [ast.unparse(k.value) for k in node.keywords if k.arg is None]
                made_with = "consumer_connection" if ast.unparse(node.func).endswith("Consumer") else "connection"
                assert given in ([f"{made_with}(config)"], [f"{made_with}(settings)"]), f"{file}:{node.lineno}"
                calls.append(node)
    assert len(calls) > 12


def test_help_imports_no_large_library():
    code = (
        "import sys; import stream.cli; "
        "print([m for m in ('torch', 'faust', 'aiokafka', 'numpy', 'kafka', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_a_worker_without_a_version_does_not_import_torch():
    code = "import sys; import stream.worker.service; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"


def test_serve_and_its_console_do_not_import_torch():
    code = "import sys; import stream.serve.service, stream.console.routes; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"
