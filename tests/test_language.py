"""No retired word is used in code, pages and tests. Each idea has one word, the usual word of the field."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("state", "model", "stream", "benchmarks", "examples", "tests", "docs")

RETIRED = {
    r"tenures?": "assignment",
    r"owe[ds]?|debts?": "pending",
    r"strides?": "poll size",
    r"at hand": "in memory",
    r"put off|puts off": "deferred",
    r"gives? back|gave back|given back": "release",
    r"takes? in|taken in|taking in": "apply (state), update (counters)",
    r"heed(s|ed)?": "follow, apply",
    r"obey(s|ed)?": "on_command, follow",
    r"told|untold": "report, publish, log",
    r"hear|hears|heard": "receive",
    r"spoken|speaks? for": "entries, evidence",
    r"voices?": "signal",
    r"foretell(s|ing)?|foretold": "predict",
    r"anew": "again, from scratch",
    r"bur(y|ies|ied)": "send_dead_letters",
    r"insist(s|ed|ing)?": "retry until acknowledged",
    r"mend(s|ed|ing)?": "fix, repair, reopen",
    r"at (its|their) begin": "at the start",
    r"movers?": "optimizers",
    r"placing": "ndcg_search",
    r"la(y|ys|id) out": "map, mapped",
    r"(keep|keeps|kept) back": "hold out, held out",
    r"besides": "also",
    r"whoever": "the process, the user, the caller",
    r"whence|thereof|hitherto|lest|wherefore": "plain words",
    r"will not have (us|it|them|him|her)": "rejects, refuses",
    r"(is|are) none of": "is not",
    r"of which": "a second sentence",
    r"by heart": "what it was trained on",
    r"what is \w+ that": "a sentence with a subject",
}
"""Retired words, each a regex of whole words in text with split identifiers, and the words to use instead."""

ON_DISK = ('"told"',)
"""Keys of records on disk, as code quotes them: another word would make existing stores unreadable."""

CONSTANTS = [
    "MOST",
    "DRAWN",
    "FEW",
    "FIRST",
    "KEPT",
    "NOTHING",
    "NOBODY",
    "AT_ONCE",
    "AT_MOST",
    "OFTEN",
    "CELLS",
    "PREFIX",
]
"""Constant names that do not say what they limit or hold. Good names: MAX_…, EMPTY_IDS, SAMPLED_NEGATIVES."""


def files() -> Iterator[Path]:
    """Code, tests, pages and samples, but no recorded results and no build output."""
    for folder in CODE:
        yield from (ROOT / folder).rglob("*.py")
    yield from ROOT.glob("*.md")
    yield from (ROOT / "docs").rglob("*.md")
    yield from (ROOT / "benchmarks").glob("*.md")
    yield from (file for file in (ROOT / "deploy").rglob("*") if file.is_file())
    yield from (ROOT / "Makefile", ROOT / "pyproject.toml")


FILES = sorted({f for f in files() if f != Path(__file__)})


def text_of(file: Path) -> str:
    """The text of a file. Of the changelog only the newest section counts, without its list of moved modules: older
    sections and that list must name the old words."""
    text = file.read_text()
    for key in ON_DISK:
        text = text.replace(key, '""')
    if file.name != "CHANGELOG.md":
        return text
    newest = "\n## ".join(text.split("\n## ")[:2])
    return newest.split("\n### Module paths")[0]


def words_of(text: str) -> str:
    """The text in lower case, with identifiers split into words.

    >>> words_of("self._toldOf = OnlineFusion()")
    'self. told of = online fusion()'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ").lower()


def whole_words(pattern: str) -> str:
    """The pattern between word boundaries. A space in it also matches the end of a line."""
    return rf"(?<!\w)(?:{pattern})(?!\w)".replace(" ", r"\s+")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_file_uses_a_retired_word(file):
    words = words_of(text_of(file))
    found = [
        f"{file.relative_to(ROOT)}:{1 + words[: match.start()].count(chr(10))}: {match[0]!r}, use: {instead}"
        for retired, instead in RETIRED.items()
        for match in re.finditer(whole_words(retired), words)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", [f for f in FILES if f.suffix == ".py"], ids=lambda f: str(f.relative_to(ROOT)))
def test_every_constant_has_a_name_that_describes_it(file):
    found = re.findall(rf"^({'|'.join(CONSTANTS)})\b[^=\n]*=", file.read_text(), re.M)
    assert not found, f"{file.relative_to(ROOT)}: {found}"


def test_retired_words_are_found_inside_identifiers():
    pattern = whole_words("|".join(RETIRED))
    for text in ("self._told", "readHeardPointers()", "the users owed an answer", "DEBTS"):
        assert re.search(pattern, words_of(text)), text
    for text in ("allowed", "buryl", "folded", "a pending user"):
        assert not re.search(pattern, words_of(text)), text
