"""`forget`: erasing a user."""

from typing import Annotated

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker, utf8


@app.command()
def forget(
    name: Annotated[str, typer.Argument(metavar="USER", callback=utf8)],
    within_s: Annotated[float, typer.Option("--within", help="Seconds to wait for the worker.")] = 120.0,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a user for good, from a state rebuilt from the log too; then search every file for what is left."""
    from stream.cli.inspect import show, show_json
    from stream.kafka.topics import check
    from stream.operate.forget import forget as erase

    settings = need_broker(configured(config, data, broker))
    check(settings)
    report = erase(settings, name, within_s)
    if as_json:
        show_json(report)
    else:
        searched = report["searched"]
        for place in report["published"]:
            show(f"forget event of {name} at partition {place['partition']}, offset {place['offset']}")
        show(
            f"searched {searched['files']:,} files ({searched['bytes'] / 1e6:,.1f} MB) and {searched['records']:,} "
            f"records in {settings.data} for the id and its hash: "
            + (f"found in {len(report['found'])} places" if report["found"] else "nothing")
        )
        for found in report["found"]:
            show(f"  {found}")
        if report["not_here"]:
            show(f"the state of partitions {report['not_here']} is not in {settings.data}: call this where it is")
    if report["found"]:
        raise typer.Exit(1)
