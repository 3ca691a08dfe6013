"""Where families write their features."""

from collections.abc import Mapping

import numpy as np

from model.encoders.vocabulary import Indices
from state.events import Floats

Columns = Mapping[str, Floats]
"""The column [M] of each feature, by its name; zeros at first."""


def powers(decay: float, ages: Indices) -> Floats:
    """decay^a of whole numbers a. Each power is computed once."""
    found: Floats = (decay ** np.arange(ages.max(initial=0) + 1)).astype(np.float32)[ages]
    return found
