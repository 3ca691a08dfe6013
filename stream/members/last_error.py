"""The newest warning or error that this process has logged: part of the record that it publishes."""

import logging

from stream.printable import printable

MAX_CHARS = 400


class LastError(logging.Handler):
    """Keeps one line. Attach it to the root logger, as `MemberPublisher` does."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text, self.ts = "", 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's line. One that cannot be formatted is kept as it is: logging must not fail."""
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        self.text, self.ts = printable(text[:MAX_CHARS]), int(record.created * 1000)
