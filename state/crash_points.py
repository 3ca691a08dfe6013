"""Crash points: the numbered steps of an event's path, which `stream/worker/pipeline.py` lists.

Tests replace `reached` by a function that kills the process, and so prove what a crash after each step leaves behind.
In production it does nothing.
"""


def reached(point: int) -> None:
    """The step with this number is done."""
