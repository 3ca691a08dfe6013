"""`withdraw`: an item that is recommended to nobody."""

from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, utf8
from stream.cli.output import show, show_json
from stream.errors import ConfigError

if TYPE_CHECKING:
    from stream.config import Config


@command()
def withdraw(
    item: Annotated[str | None, typer.Argument(help="The item.", callback=utf8)] = None,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Recommend the item again.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the withdrawn items.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Recommend an item to nobody, or with --undo to everybody again. Every worker follows within a second."""
    from stream.kafka.topics import check
    from stream.operate.withdraw import is_known, withdraw_item, withdrawn_items

    if (item is None) != listed or (listed and undo):
        raise ConfigError("give either an item, with --undo to bring it back, or --list")
    if item is None:
        names = withdrawn_items(settings)
        return show_json({"withdrawn": names}) if as_json else show("\n".join(names) or "no item is withdrawn")
    check(settings)
    withdraw_item(settings, item, withdrawn=not undo)
    known = is_known(settings, item)
    if as_json:
        return show_json({"item": item, "withdrawn": not undo, "known": known})
    show(f"{item} is recommended {'again' if undo else 'to nobody'} from now on")
    if known is False:
        show(f"no event of {item} is in {settings.data}: is this its id?")
