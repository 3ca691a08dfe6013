"""A ranker as the bytes of a file: of a version, and of what a worker has learned since.

Its tensors have names and shapes of `Ranker`. The file also names the columns of the features and the form of the
network. A ranker of other columns is not read: its weights would be those of other features.
"""

import json
from typing import NamedTuple

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.ranker.network import HIDDEN, Ranker

MAX_RANKER_BYTES = 16 << 20


class Stored(NamedTuple):
    """What a file has."""

    ranker: Ranker | None
    """None: it reads other features than this release computes."""
    version: str
    """The version that the ranker belongs to."""


def encode(ranker: Ranker, schema: str, version: str = "") -> bytes:
    """The file of a ranker whose features are the columns of `schema`."""
    tensors = {name: tensor.contiguous() for name, tensor in ranker.state_dict().items()}
    return save_tensors(tensors, {"features": _form(schema), "version": version})


def decode(encoded: bytes, features: int, schema: str) -> Stored:
    """Read a file, for `features` columns of `schema`. Raises ValueError where it is no ranker."""
    if len(encoded) > MAX_RANKER_BYTES:
        raise ValueError(f"its ranker: {len(encoded):,} bytes are more than the {MAX_RANKER_BYTES:,} that are read")
    try:
        tensors = load_tensors(encoded)
        about = json.loads(encoded[8 : 8 + int.from_bytes(encoded[:8], "little")]).get("__metadata__", {})
    except Exception as error:  # a header that lies raises KeyError, TypeError and others beside SafetensorError
        raise ValueError(f"its ranker: {type(error).__name__}: {error}") from None
    if about.get("features") != _form(schema):
        return Stored(None, about.get("version", ""))
    ranker = Ranker(features)
    wanted = ranker.state_dict()
    if wanted.keys() != tensors.keys():
        raise ValueError(f"its ranker: its tensors are {sorted(tensors)[:20]}, not {sorted(wanted)}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype:
            raise ValueError(
                f"its ranker: {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"not {wanted[name].dtype} {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"its ranker: {name} has values that are not finite numbers")
    if not (tensors["spread"] > 0).all():
        raise ValueError("its ranker: a spread is not above 0")
    ranker.load_state_dict(tensors)
    return Stored(ranker, about.get("version", ""))


def _form(schema: str) -> str:
    return "-".join([schema, *map(str, HIDDEN)])
