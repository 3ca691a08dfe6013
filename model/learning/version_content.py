"""The content of a version's files, checked before anything of it is used.

A hash only proves that a file is the one that its manifest names. The writer of both can have written anything.
"""

import msgspec
import numpy as np
import torch
from safetensors.torch import load as load_tensors

from model.encoders.create import Create
from model.encoders.graph_table import DIM
from model.encoders.vocabulary import Vocabulary
from model.settings import ModelSettings

GRAPH_TABLE = "graph_table"


def read_graph_table(encoded: bytes, items: int) -> torch.Tensor:
    """The table in `graph_table.safetensors`, for this number of items. Raises ValueError."""
    try:
        table = load_tensors(encoded)[GRAPH_TABLE]
    except Exception as error:  # a header that lies raises KeyError, TypeError and others beside SafetensorError
        raise ValueError(f"its graph table: {type(error).__name__}: {error}") from None
    if tuple(table.shape) != (items + 1, DIM) or table.dtype != torch.float16 or not torch.isfinite(table).all():
        raise ValueError(
            f"its graph table is {table.dtype} {tuple(table.shape)}, not finite numbers of float16 {(items + 1, DIM)}"
        )
    return table


def read_items(encoded: bytes) -> Vocabulary:
    """The vocabulary in `items.msgpack`. Raises ValueError."""
    try:
        hashes, ids = msgspec.msgpack.decode(encoded, type=tuple[list[int], list[str]])
        vocabulary = Vocabulary(np.array(hashes, np.uint64), ids)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
        raise ValueError(f"its items: {error}") from None
    known = vocabulary.hashes[vocabulary.hashes != 0]
    if len(np.unique(known)) < len(known):
        raise ValueError("its items: an item has two rows")
    return vocabulary


def read_model(encoded: bytes, items: int, settings: ModelSettings) -> Create:
    """The encoders in `weights.safetensors`, for this number of items. Raises ValueError."""
    try:
        tensors = load_tensors(encoded)
    except Exception as error:  # a header that lies raises KeyError, TypeError and others beside SafetensorError
        raise ValueError(f"its weights: {type(error).__name__}: {error}") from None
    # The settings are of the manifest: a model of their size is built only where the file has that many weights.
    rows = tensors.get("items.weight")
    weights = sum(tensor.numel() for tensor in tensors.values())
    too_few = settings.layers * settings.dim**2 > weights
    if rows is None or tuple(rows.shape) != (items + 1, settings.dim) or too_few:
        found = "none" if rows is None else f"{tuple(rows.shape)}"
        raise ValueError(
            f"its weights: items.weight is {found}, the manifest and the items say {(items + 1, settings.dim)}, "
            f"with {settings.layers} layers in {weights:,} weights"
        )
    model = Create(items, settings)
    for name, wanted in model.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ValueError(f"its weights: {name} is missing")
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise ValueError(
                f"its weights: {name} is {tensor.dtype} {tuple(tensor.shape)}, not {wanted.dtype} {tuple(wanted.shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"its weights: {name} has values that are not finite numbers")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"its weights: {error}") from None
    return model.eval()
