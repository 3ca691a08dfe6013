"""Write `docs/configuration.md` and `deploy/anabranch.toml` from the settings themselves: `make docs`."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from stream.config import Config, choices_of

ROOT = Path(__file__).parent.parent

PAGE = """# Configuration

`anabranch.toml` in the working directory (or `--config FILE`, `ANABRANCH_CONFIG`), then `ANABRANCH_*` variables, then
flags, the later the stronger. A variable joins sections with two underscores: `ANABRANCH_TRAINER__EVERY_S=60`. What
does not exist, or is out of range, is refused by name. `deploy/anabranch.toml` is a sample with every setting. Both
are written from the code by `make docs`.

| setting | default | |
|---|---|---|
"""
SAMPLE = """## Every setting with its default: copy this file to where you start anabranch, uncomment what you change.
"""


def told(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstring after each field says, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return found


def settings(value: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name, default and explanation of every setting; a section's plain settings before its subsections."""
    parts = {field: getattr(value, field) for field in value.__struct_fields__}
    words = told(type(value))
    for field, part in parts.items():
        if not isinstance(part, msgspec.Struct | dict):
            yield prefix + field, part, words.get(field, "")
    for field, part in parts.items():
        if isinstance(part, dict):
            for number, (name, one) in enumerate(part.items()):
                yield f"{prefix}{field}.{name}", one, "" if number else words.get(field, "")
    for field, part in parts.items():
        if isinstance(part, msgspec.Struct):
            yield from settings(part, f"{prefix}{field}.")


def toml(value: Any) -> str:
    """A default as TOML has it."""
    if isinstance(value, msgspec.Struct):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in msgspec.structs.asdict(value).items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def shown(value: Any) -> str:
    """A default as the page has it."""
    return "unset" if value in (None, "") else f"`{toml(value)}`"


def explained(name: str, what: str) -> str:
    """What is said of a setting, and the values it is one of."""
    return " ".join([what, *([f"One of {', '.join(f'`{c}`' for c in choices_of(name))}."] if choices_of(name) else [])])


def page() -> str:
    """docs/configuration.md"""
    rows = [f"| `{name}` | {shown(value)} | {explained(name, what)} |" for name, value, what in settings(Config())]
    return PAGE + "\n".join(rows) + "\n"


def sample() -> str:
    """deploy/anabranch.toml"""
    lines, section = [SAMPLE], ""
    for name, value, what in settings(Config()):
        place, _, key = name.rpartition(".")
        if place != section:
            lines.append(f"\n[{place}]")
            section = place
        lines += [f"## {line}" for line in textwrap.wrap(explained(name, what), 110)]
        lines.append(f"# {key} = {toml(value)}" if value is not None else f"## {key} is unset")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs/configuration.md").write_text(page())
    (ROOT / "deploy/anabranch.toml").write_text(sample())
