"""Log lines about messages of others: a flood of bad messages is no flood of lines."""

import time
from collections.abc import Callable


class Rarely:
    """Lets a line be logged once in `every_s` seconds for each subject."""

    def __init__(self, every_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._logged_at: dict[str, float] = {}

    def may_log(self, subject: str = "") -> bool:
        """Whether that time has passed since this last returned True for the subject."""
        now = self._clock()
        if now - self._logged_at.get(subject, float("-inf")) < self._every_s:
            return False
        self._logged_at[subject] = now
        return True
