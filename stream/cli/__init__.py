"""The `anabranch` command."""

from stream.cli.entry import main

__all__ = ["main"]
