"""`health`: whether the processes of this machine are ready, as an exit status and a sentence."""

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
    serve: Annotated[bool, typer.Option("--serve", help="Only serve: the HTTP interface and the console.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Tell whether the worker, the trainer and serve of this machine are ready: exit status 0, else 1."""
    from stream.operate import health as found

    named: dict[found.Role, bool] = {"worker": worker, "trainer": trainer, "serve": serve}
    roles = [role for role, wanted in named.items() if wanted] or found.roles_here(settings)
    if not roles:
        raise AnabranchError(
            f"no worker, trainer or serve has run in {settings.data} on this machine, and worker.http and trainer.http "
            f"name no address: name the directory with --data DIR. `anabranch status --broker HOST:PORT` shows the "
            f"processes of all machines"
        )
    reports = {role: found.health(settings, role) for role in roles}
    if as_json:
        show_json(reports)
    else:
        for role, report in reports.items():
            state = "ready" if report.ready else f"not ready: {'; '.join(report.problems)}"
            show(f"{role:8} {state} (from {report.source})")
    if not all(report.ready for report in reports.values()):
        raise typer.Exit(1)
