"""How long each phase of a cycle takes."""

import time

from model.learning.cycle import FIRST_FIT, GATE, LAST_FIT, WEIGHTS
from stream.metrics.instruments import TrainerInstruments

PHASE_OF = {FIRST_FIT: "first_fit", WEIGHTS: "weights", LAST_FIT: "last_fit", GATE: "gate"}
"""The phase that each text of a cycle's progress belongs to."""


class CyclePhases:
    """Follows one cycle, which begins with the phase `read`. A cycle that fails leaves its last phase out."""

    def __init__(self, instruments: TrainerInstruments) -> None:
        self._instruments = instruments
        self._name, self._began = "read", time.perf_counter()

    def on_progress(self, what: str) -> None:
        """Another step may have begun; called from the thread that learns."""
        name = PHASE_OF.get(what, self._name)
        if name != self._name:
            self.begin(name)

    def begin(self, name: str) -> None:
        """The phase before has ended, and this one begins."""
        self.end()
        self._name, self._began = name, time.perf_counter()

    def end(self) -> None:
        """The phase has ended."""
        self._instruments.phase(self._name, time.perf_counter() - self._began)
