"""`anabranch evaluate`: from a CSV to a table, a document and a picture."""

import importlib.util
import itertools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from model.errors import NothingToTest
from model.evaluation import prequential
from model.evaluation.reports import Curves, CycleReport, PrequentialReport, StreamEvents
from model.ranking.fusion import INITIAL_FUSION
from stream.cli.app import app
from stream.errors import AnabranchError
from stream.operate.plot import draw, require, spread

SMALL = """
[model]
dim = 8
[training]
warm_up_epochs = 1
epochs = 1
last_epochs = 1
"""


@pytest.fixture
def asked(tmp_path):
    draw_from = np.random.default_rng(0)
    lines = [f"u{draw_from.integers(9)},i{draw_from.integers(20)},{1_500_000_000 + n}" for n in range(200)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,timestamp", *lines]))
    (tmp_path / "small.toml").write_text(SMALL)
    arguments = ["evaluate", str(tmp_path / "clicks.csv"), "--protocol", "prequential", "--cycles", "2"]
    return [*arguments, "--config", str(tmp_path / "small.toml")]


def test_the_prequential_protocol_prints_a_table_and_a_document(asked):
    table = CliRunner().invoke(app, asked)
    assert table.exit_code == 0, table.output
    for name in ("create", "frozen", "session-kNN", "2 versions learned", "first visits", "history 15+", "over fusion"):
        assert name in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 100
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert found["models"]["create"]["hit@10"] > 0
    assert found["events"]["tested"] == 160
    assert found["moment"] == "asked"
    pushed = CliRunner().invoke(app, [*asked, "--moment", "pushed"])
    assert "the time of the user's event before it" in pushed.stdout


def test_the_global_temporal_protocol_prints_scores_with_seen_items_and_without(asked):
    arguments = [a if a != "prequential" else "global-temporal" for a in asked if a not in ("--cycles", "2")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    with_seen, _, without = result.stdout.partition("Seen items left out:")
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    for text, seen in ((with_seen, "unfiltered"), (without, "filtered")):
        [line] = [line for line in text.splitlines() if line.split()[:2] == ["create+graph", "successive"]]
        assert line.split()[2] == f"{100 * found['models']['create+graph']['successive'][seen]['ndcg@10']:.2f}%"
        assert "create over sasrec, last: NDCG@10" in text
    assert "create: 1 epochs of the graph and 2 joint ones; sasrec: 3, which take about as long." in result.stdout


def test_options_of_the_prequential_protocol_are_refused_with_the_other_one(asked):
    arguments = [a if a != "prequential" else "global-temporal" for a in asked]
    with pytest.raises(AnabranchError, match="--moment need --protocol prequential, but it is global-temporal"):
        CliRunner().invoke(app, [*arguments, "--moment", "pushed"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("protocol", "clicks", "message"),
    [
        ("global-temporal", lambda n: (n % 9, 0), "no event comes after the 0.9 quantile of time"),
        ("global-temporal", lambda n: (n if n > 90 else n % 9, n), "0 are of items that are new after it"),
        ("prequential", lambda n: (n, n), "each is the first of its user"),
    ],
    ids=["all events at one time", "the last users are new", "no user has two events"],
)
def test_a_file_without_a_testable_event_is_refused_with_the_reason(asked, tmp_path, protocol, clicks, message):
    lines = [f"u{user},i{n % 5},{1_500_000_000 + after}" for n in range(120) for user, after in [clicks(n)]]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,timestamp", *lines]))
    with pytest.raises(NothingToTest, match=message):
        CliRunner().invoke(app, [protocol if a == "prequential" else a for a in asked], catch_exceptions=False)


def test_an_impossible_picture_is_refused_before_training(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(prequential, "prequential", lambda *_, **__: pytest.fail("training has begun"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for file, message in (
        (tmp_path / "out.png", "pip install 'anabranch\\[plot\\]'"),
        (tmp_path / "out.jpg", "a picture ends in .png"),
        (tmp_path / "none" / "out.png", "there is no directory"),
    ):
        with pytest.raises(AnabranchError, match=message):
            CliRunner().invoke(app, [*asked, "--plot", str(file)], catch_exceptions=False)


def test_draw_writes_the_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'anabranch[plot]'")
    require(tmp_path / "out.png")
    cycles = [CycleReport(at, 0.1, at == 1, "", INITIAL_FUSION, {}) for at in (1, 2)]
    curves = Curves([1, 2, 3], {"create": [0.1, 0.2, 0.3], "own": [0.1, 0.1, 0.1]})
    found = PrequentialReport("prequential", StreamEvents(3, 0), {}, {"create": cycles}, curves)
    draw(found, tmp_path / "out.png", "clicks")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_labels_at_the_ends_of_lines_keep_their_order_and_do_not_touch():
    ends = spread({"a": 9.0, "b": 9.1, "c": 3.0, "d": 0.0, "e": 0.1, "f": 9.2}, 1.0)
    assert ends["c"] == 3.0
    heights = [ends[name] for name in "decabf"]
    assert all(high - low >= 0.999 for low, high in itertools.pairwise(heights))
    assert heights[0] >= 0.5
    assert ends["b"] == pytest.approx(9.1)
