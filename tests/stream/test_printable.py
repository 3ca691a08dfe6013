"""No character of others moves a cursor, turns text round, or begins a line of its own."""

import io
import json
import logging
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.printable import PrintableFormatter, printable, printable_json, printable_lines

REORDERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
anything = st.text(st.characters(), max_size=30)  # also halves of surrogate pairs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("milk\x1b[31m", r"milk\x1b[31m"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J", r"\x9b2J"),
        ("ab\u202edc", r"ab\u202edc"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("Müsli 日本\u3000語 👩\u200d🌾 می\u200cخواهم", "Müsli 日本\u3000語 👩\u200d🌾 می\u200cخواهم"),
    ],
)
def test_what_is_not_for_print_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


@given(anything)
def test_no_control_character_and_no_change_of_direction_is_left(text):
    for character in printable(text):
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in REORDERING
    assert printable_lines(f"{text}\n{text}").count("\n") == 2 * text.count("\n") + 1


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
    st.sampled_from(["utf-8", "UTF8", "ascii", "latin-1", None]),
)
def test_a_json_document_keeps_its_data(document, encoding):
    shown = printable_json(msgspec.json.encode(document), encoding)
    assert json.loads(shown) == document
    assert printable(shown) == shown
    assert encoding in ("utf-8", "UTF8") or shown.isascii()


def test_a_log_line_is_one_line_whatever_is_in_it():
    stream, log = io.StringIO(), logging.getLogger("test of printable")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False
    log.error("no title of %s", "x\nERROR all is lost\x1b[2J")
    try:
        raise ValueError("a\x1bb")
    except ValueError:
        log.exception("failed")
    first, _, *traceback = stream.getvalue().splitlines()
    assert first == r"ERROR no title of x\nERROR all is lost\x1b[2J"
    assert traceback[-1] == r"ValueError: a\x1bb"
