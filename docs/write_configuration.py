"""Write what describes the settings from the settings themselves: `make docs`.

docs/configuration.md, deploy/anabranch.toml, and the part of the chart's values.schema.json below `config`.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from state.settings import Kind
from stream.config import Config, choices_of
from stream.http.struct_docs import docstrings_of

ROOT = Path(__file__).parent.parent
CHART_SCHEMA = ROOT / "deploy/helm/anabranch/values.schema.json"

PAGE = """# Configuration

Settings come from `anabranch.toml` in the working directory (or `--config FILE`, `ANABRANCH_CONFIG`), then from
`ANABRANCH_*` variables, then from flags. The later one wins. A variable joins sections with two underscores:
`ANABRANCH_TRAINER__EVERY_S=60`. A setting that does not exist or is out of range is refused by name.
`deploy/anabranch.toml` is a sample with every setting. `make docs` writes both from the code.

| setting | default | meaning |
|---|---|---|
"""
SAMPLE = """## Every setting with its default. Copy this file to where you start anabranch; uncomment what you change.
"""


def settings(value: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name, default and explanation of every setting; a section's plain settings before its subsections."""
    parts = {field: getattr(value, field) for field in value.__struct_fields__}
    docstrings = docstrings_of(type(value))
    for field, part in parts.items():
        if not isinstance(part, msgspec.Struct | dict):
            yield prefix + field, part, docstrings.get(field, "")
    for field, part in parts.items():
        if isinstance(part, dict):
            for number, (name, one) in enumerate(part.items()):
                yield f"{prefix}{field}.{name}", one, "" if number else docstrings.get(field, "")
    for field, part in parts.items():
        if isinstance(part, msgspec.Struct):
            yield from settings(part, f"{prefix}{field}.")


def toml(value: Any) -> str:
    """A default in TOML."""
    if isinstance(value, msgspec.Struct):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in msgspec.structs.asdict(value).items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def default_on_page(value: Any) -> str:
    """A default on the page."""
    return "unset" if value in (None, "") else f"`{toml(value)}`"


def explanation(name: str, docstring: str) -> str:
    """The docstring of a setting, and the values it may have."""
    choices = ", ".join(f"`{choice}`" for choice in choices_of(name))
    return f"{docstring} One of {choices}." if choices else docstring


def page() -> str:
    """docs/configuration.md"""
    rows = [
        f"| `{name}` | {default_on_page(value)} | {explanation(name, docstring)} |"
        for name, value, docstring in settings(Config())
    ]
    return PAGE + "\n".join(rows) + "\n"


def sample() -> str:
    """deploy/anabranch.toml"""
    lines, section = [SAMPLE], ""
    for name, value, docstring in settings(Config()):
        place, _, key = name.rpartition(".")
        if place != section:
            lines.append(f"\n[{place}]")
            section = place
        lines += [f"## {line}" for line in textwrap.wrap(explanation(name, docstring), 110)]
        lines.append(f"# {key} = {toml(value)}" if value is not None else f"## {key} is unset")
    return "\n".join(lines) + "\n"


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a section: each setting with its type, limits, default and explanation, and no other key.

    No key is required: what is not set has its default.
    """
    docstrings, properties = docstrings_of(kind), {}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found = json_schema(field.type)
        elif field.name == "kinds":
            found = {"type": "object", "additionalProperties": json_schema(Kind)}
        elif field.type is Path:
            found = {"type": "string", "default": str(field.default)}
        else:
            found = msgspec.json.schema(field.type)
            if field.default is not msgspec.NODEFAULT:
                found["default"] = field.default
        if field.name in docstrings:
            found["description"] = docstrings[field.name]
        properties[field.name] = found
    return {"type": "object", "additionalProperties": False, "properties": properties}


def chart_schema() -> str:
    """deploy/helm/anabranch/values.schema.json: what is written by hand, and every setting below `config`."""
    schema = json.loads(CHART_SCHEMA.read_text())
    schema["properties"]["config"] = {
        "description": "anabranch.toml: any setting of docs/configuration.md."
    } | json_schema(Config)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / "docs/configuration.md").write_text(page())
    (ROOT / "deploy/anabranch.toml").write_text(sample())
    CHART_SCHEMA.write_text(chart_schema())
