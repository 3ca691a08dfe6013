"""The ranker that a worker has moved since its version was published, in a file beside the state.

The worker's next start goes on from it, and `anabranch recommend` ranks with it. The format is safetensors: numbers
only, nothing that a file could run.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Role = Literal["champion", "candidate"]
ROLES: tuple[Role, ...] = ("champion", "candidate")
MAX_BYTES = 4 << 20
"""A larger file is not read. A ranker has some 30 kB."""


class StoredRanker(NamedTuple):
    """One worker's ranker of one version."""

    version: str
    schema: str
    """Of its features."""
    ts: int
    """Event time, ms, of the newest example that it has learned."""
    weights: Mapping[str, np.ndarray]


def write(data: Path, instance: str, role: Role, stored: StoredRanker) -> None:
    """Replace the file of this worker; a full disk does not stop the worker."""
    file = _file(data, instance, role)
    temporary = file.with_name(f"{file.name}.new")
    about = {"version": stored.version, "schema": stored.schema, "ts": str(stored.ts)}
    with contextlib.suppress(OSError, SafetensorError):
        save_file(dict(stored.weights), temporary, about)
        temporary.rename(file)


def read(data: Path, instance: str, role: Role) -> StoredRanker | None:
    """The ranker in the file; None if there is no file, or it holds no finite numbers with what they belong to."""
    file = _file(data, instance, role)
    try:
        if file.stat().st_size > MAX_BYTES:
            return None
        with safe_open(file, "numpy") as tensors:
            about = tensors.metadata() or {}
            weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  not a mapping
        if not all(w.dtype == np.float32 and np.isfinite(w).all() for w in weights.values()):
            return None
        return StoredRanker(about["version"], about["schema"], int(about["ts"]), weights)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _file(data: Path, instance: str, role: Role) -> Path:
    return data / f"ranker-{instance}-{role}.safetensors"
