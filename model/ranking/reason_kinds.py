"""The kinds of reasons (`model.ranking.why` chooses one for each item). Importing them takes no time."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

KindsOfReasons = npt.NDArray[np.int8]
"""Numbers of `Why`."""


class Why(IntEnum):
    """The reason for one recommended item."""

    NONE = 0
    AGAIN = 1
    FOLLOWED = 2
    SIMILAR = 3
    RISING = 4
    POPULAR = 5
    NEW = 6


TEXTS = tuple("" if why is Why.NONE else why.name.lower() for why in Why)
"""Each kind as messages have it; empty for NONE."""
