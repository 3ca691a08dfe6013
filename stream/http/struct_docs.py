"""The docstrings after the fields of a struct, from its source."""

import ast
import inspect
import textwrap
from itertools import pairwise

import msgspec


def docstrings_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstring after each field, on one line, by field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    docstrings = {}
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docstrings[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return docstrings
