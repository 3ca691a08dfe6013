"""Tracing as the settings want it."""

from stream.config import Config
from stream.errors import ConfigError
from stream.tracing.spans import Spans


def start_spans(config: Config, instance: str) -> Spans:
    """The spans of a worker; `instance` is its key among the members. Raises ConfigError if the extra is missing."""
    if not config.tracing.endpoint:
        return Spans()
    try:
        from stream.tracing.open_telemetry import exporting_spans
    except ImportError as error:
        raise ConfigError(
            f"tracing.endpoint = {config.tracing.endpoint!r}, but OpenTelemetry is not installed ({error}): "
            f"pip install 'anabranch[tracing]', or leave the setting empty"
        ) from None
    return exporting_spans(config, instance)
