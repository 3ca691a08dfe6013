"""Text of others as a person may see it: ids and titles can hold what moves a cursor or turns a line round."""

import logging
import re

# Control characters; marks that change the direction of text; line and paragraph separators; invisible characters and
# tags; halves of surrogate pairs. Joiners (U+200C, U+200D) and wide spaces stay: scripts and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_UNSAFE_OR_NOT_ASCII = re.compile(_UNSAFE.pattern[:-1] + "\x80-\U0010ffff]")


def printable(text: object) -> str:
    r"""The text on one line, each character that is not for print as an escape.

    >>> printable("milk" + chr(27) + "[31m" + chr(10))
    'milk\\x1b[31m\\n'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def printable_lines(text: str) -> str:
    """As `printable`, but its lines stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: bytes, encoding: str | None) -> str:
    """A JSON document as the same document in characters that are for print and that `encoding` has."""
    unicode = (encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")
    return (_UNSAFE if unicode else _UNSAFE_OR_NOT_ASCII).sub(_json_escape, document.decode())


def _json_escape(found: re.Match[str]) -> str:
    pair = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{pair[at : at + 4]}" for at in range(0, len(pair), 4))


class PrintableFormatter(logging.Formatter):
    """Formats log lines: a message is one line, whatever ids and errors are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """The line of a record, without its traceback."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802  logging's name
        """The traceback of a record."""
        return printable_lines(super().formatException(ei))  # type: ignore[arg-type]
