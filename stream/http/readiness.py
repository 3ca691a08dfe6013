"""Whether a worker is ready: one rule for `/readyz`, for the metric `anabranch_ready` and for `anabranch health`."""

from collections.abc import Mapping


def not_ready(
    phases: Mapping[int, str], *, joined: bool, confirmed: bool, paused: bool, version_problem: str
) -> list[str]:
    """Why a worker is not ready, a sentence for each reason; none: it is ready.

    A worker that the group gave no partition is ready: it waits for one. Without any version popular items are
    recommended on purpose; `version_problem` says why the version that is named cannot be served by any other.
    """
    problems = []
    if paused:
        problems.append("an operator has paused it: `anabranch resume` continues")
    if not joined:
        problems.append("the group has not assigned its partitions yet, or assigns them again")
    # The group confirms a worker by its commits: one without an open store makes none.
    if any(phase != "opening" for phase in phases.values()) and not confirmed:
        problems.append("the group does not confirm it: the broker is away or slow, and nothing is applied or sent")
    by_phase: dict[str, list[int]] = {}
    for number, phase in sorted(phases.items()):
        if phase != "answering":
            by_phase.setdefault(phase, []).append(number)
    for phase, numbers in by_phase.items():
        many = len(numbers) > 1
        problems.append(
            f"partition{'s' * many} {', '.join(map(str, numbers))} {'are' if many else 'is'} {phase}, not answering"
        )
    if version_problem:
        problems.append(version_problem)
    return problems
