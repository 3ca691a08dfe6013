"""The numbered steps of an event's path (`stream/worker/pipeline.py` lists them), as a place where a crash can be had.

A promise about what a crash after step n does is only worth something when a process died there: tests put their own
`reached` in place of this one and end the process in it. In production it does nothing.
"""


def reached(step: int) -> None:
    """The step is done."""
