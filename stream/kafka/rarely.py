"""Log lines about messages of others: a flood of bad messages is no flood of lines."""

import time

AGAIN_S = 60.0


class Rarely:
    """Lets a line be logged once a minute for each subject."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def may_log(self, subject: str = "") -> bool:
        """Whether a minute has passed since this last returned True for the subject."""
        now = time.monotonic()
        if now - self._logged_at.get(subject, -AGAIN_S) < AGAIN_S:
            return False
        self._logged_at[subject] = now
        return True
