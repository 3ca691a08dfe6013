"""`health`: whether the worker and the trainer of this machine are ready, as an exit status and a sentence."""

from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command
from stream.cli.output import show, show_json
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from stream.config import Config


@command(broker_required=False)
def health(
    *,
    worker: Annotated[bool, typer.Option("--worker", help="Only the worker.")] = False,
    trainer: Annotated[bool, typer.Option("--trainer", help="Only the trainer.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Tell whether the worker and the trainer of this machine are ready: exit status 0, else 1."""
    from stream.operate import health as found

    roles = [*(["worker"] if worker else []), *(["trainer"] if trainer else [])] or found.roles_here(settings)
    if not roles:
        raise AnabranchError(
            f"neither a worker nor a trainer has run in {settings.data}, and neither has an address: name the "
            f"directory with --data DIR"
        )
    reports = {role: found.health(settings, "worker" if role == "worker" else "trainer") for role in roles}
    if as_json:
        show_json(reports)
    else:
        for role, report in reports.items():
            state = "ready" if report.ready else f"not ready: {'; '.join(report.problems)}"
            show(f"{role:8} {state} (from {report.source})")
    if not all(report.ready for report in reports.values()):
        raise typer.Exit(1)
