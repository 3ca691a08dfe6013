"""Every encoder and loss learns, has the right gradient, and reads only the tokens that it may read."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.graph_encoder import graph_encoder
from model.encoders.histories import Histories, pack
from model.encoders.transformer import Block
from model.learning.training import Schedule, train
from model.losses.barlow_twins import barlow_twins
from model.losses.infonce import infonce
from model.losses.sampled_softmax import sampled_softmax
from model.settings import GRAPH_ENCODERS, SEQUENCE_ENCODERS, ModelSettings, TrainingSettings

ROOT = Path(__file__).parents[3]
ITEMS = 12
SMALL = ModelSettings(dim=16, dropout=0.0)
SETTINGS = TrainingSettings()


def circles(users: int = 24, steps: int = 8) -> Histories:
    """Every user clicks the items in the same circle, so the next item is certain."""
    items = (np.arange(steps)[None, :] + np.arange(users)[:, None]) % ITEMS + 1
    return Histories(np.arange(0, users * steps + 1, steps), items.ravel(), np.tile(np.arange(steps) * 1000, users))


def next_of(histories: Histories) -> list[int]:
    return (histories.items[histories.indptr[1:] - 1] % ITEMS + 1).tolist()


@pytest.mark.parametrize(
    ("sequence", "changed"),
    [
        ("sasrec", {}),
        ("sasrec", {"graph_encoder": "lightgcn"}),
        ("sasrec", {"loss": "full"}),
        ("sasrec", {"loss": "sampled"}),
        ("sasrec", {"transfer": "infonce"}),
        ("sasrec", {"w_global": 0.0, "w_transfer": 0.0}),
        ("sasrec", {"w_global": 0.3}),
        ("sasrec", {"w_global": 0.3, "graph_encoder": "lightgcn"}),
        ("bert4rec", {}),
    ],
    ids=str,
)
def test_a_certain_next_item_is_learned(sequence, changed):
    model = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=sequence))
    training = msgspec.structs.replace(TrainingSettings(), **changed)
    epochs = 60 if sequence == "sasrec" else 500
    train(
        model,
        circles(),
        training,
        Schedule(epochs=epochs, learning_rate=5e-3, seed=1, warm_up_epochs=5, from_scratch=True),
    )
    inputs = circles().newest(7)  # not 8: BERT4Rec was trained on 7 unmasked items and a mask
    scores = model.encode(inputs) @ model.items.weight.T
    scores[:, 0] = -torch.inf
    found = scores.argmax(1).tolist()
    assert sum(a == b for a, b in zip(found, next_of(inputs), strict=True)) >= 22


def test_lightgcn_compares_and_returns_rows_after_message_passing():
    model, histories = Create(ITEMS, SMALL), circles(users=5, steps=3)
    users = torch.randn(len(histories), 16)
    graph = graph_encoder(histories, model.items, users, TrainingSettings(graph_encoder="lightgcn"))
    adjacency = torch.zeros(5 + ITEMS + 1, 5 + ITEMS + 1)
    for user in range(5):
        clicked = 5 + torch.from_numpy(histories.items[3 * user : 3 * user + 3])
        adjacency[user, clicked] = adjacency[clicked, user] = 1.0
    scale = adjacency.sum(1).clamp(min=1e-9).rsqrt()
    normal = scale[:, None] * adjacency * scale
    first = torch.cat([users, model.items.weight.detach()]).requires_grad_()
    x = (first + normal @ first + normal @ normal @ first) / 3
    torch.testing.assert_close(graph.item_rows(), x[5:])

    drawn = torch.tensor([3, 9, 12])
    edges = graph.draw(np.arange(5), torch.Generator().manual_seed(0))
    expected = [
        -torch.nn.functional.logsigmoid(x[u] @ (x[5 + i] - x[5 + drawn[j % 3]]))
        for u, i, j in zip(edges.user.tolist(), edges.item.tolist(), edges.negative.tolist(), strict=True)
    ]
    loss, view = graph.loss(edges, [], drawn, model.items(drawn))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    torch.testing.assert_close(view, x[:5])

    loss.backward()
    torch.stack(expected).mean().backward()
    torch.testing.assert_close(torch.cat([graph.users.rows.grad, model.items.weight.grad]), first.grad)


def test_packing_keeps_every_item_and_sasrec_sees_no_later_item():
    histories = Histories(np.array([0, 3, 4]), np.array([1, 2, 3, 4]))
    packed = pack(histories)
    assert packed.items[packed.tokens].tolist() == [1, 2, 3, 4]
    assert packed.items[packed.last].tolist() == [3, 4]
    model = Create(5, SMALL).eval()
    torch.nn.init.normal_(model.sequence.blocks[0].out.weight)  # a new block is the identity, without attention
    changed = Histories(histories.indptr, np.array([1, 2, 5, 4]))
    first, second = (model.sequence(model.items(p.items), p) for p in (packed, pack(changed)))
    before_last, last = packed.tokens[1], packed.tokens[2]
    assert torch.equal(first[before_last], second[before_last])
    assert not torch.equal(first[last], second[last])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", SEQUENCE_ENCODERS)
def test_serving_encodes_a_history_as_training_encodes_its_last_token(name, layers):
    encoder = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=name, layers=layers)).sequence.eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)  # a new block is the identity
    packed = pack(encoder.serving_inputs(Histories(np.array([0, 3, 4, 9, 29]), np.arange(29) % ITEMS + 1), 25))
    assert len(packed.groups) > 2
    rows = torch.randn(len(packed.items), SMALL.dim)
    with torch.no_grad():
        torch.testing.assert_close(encoder.last(rows, packed), encoder(rows, packed)[packed.last])


def test_the_error_for_heads_that_do_not_divide_the_dimension_names_the_fix():
    settings = SimpleNamespace(dim=16, heads=3, dropout=0.0)
    with pytest.raises(ValueError, match=r"model.heads = 3 does not divide model.dim = 16.* to a divisor of 16"):
        Block(settings, causal=True)


def encoded(model: Create, histories: Histories) -> torch.Tensor:
    packed = pack(histories)
    return model.eval().sequence(model.items(packed.items), packed)[packed.tokens]


@pytest.mark.parametrize(("name", "position"), [("sasrec", [0, 1, 2, 0]), ("bert4rec", [2, 1, 0, 0])])
def test_positions_count_from_the_oldest_item_in_sasrec_and_from_the_newest_in_bert4rec(name, position):
    encoder = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=name)).sequence
    packed, rows = pack(Histories(np.array([0, 3, 4]), np.arange(1, 5))), torch.randn(4, 16)
    position_rows = (encoder.positions if name == "sasrec" else encoder.ages)(torch.tensor(position))
    found = encoder(torch.zeros(len(packed.items), 16).index_copy(0, packed.tokens, rows), packed)[packed.tokens]
    torch.testing.assert_close(found, encoder.norm(rows + position_rows))  # new blocks are the identity


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_dropout_of_inputs_and_blocks_applies_in_training_only(name):
    encoder = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=name, dropout=1.0)).sequence
    packed = pack(Histories(np.array([0, 3]), np.arange(1, 4)))
    rows = torch.randn(len(packed.items), 16)
    assert not encoder.train()(rows, packed).any()
    assert encoder.eval()(rows, packed).any()
    block = encoder.blocks[0]
    for layer in (block.out, block.narrow):
        torch.nn.init.normal_(layer.weight)
    assert torch.equal(block.train()(rows, packed), rows)
    assert not torch.equal(block.eval()(rows, packed), rows)


@pytest.mark.parametrize(("sequence", "sees_later"), [("sasrec", False), ("bert4rec", True)])
def test_only_the_masked_encoder_sees_later_items(sequence, sees_later):
    model = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=sequence))
    torch.nn.init.normal_(model.sequence.blocks[0].out.weight)  # a new block is the identity, without attention
    one = encoded(model, Histories(np.array([0, 4]), np.array([1, 2, 3, 4])))
    other = encoded(model, Histories(np.array([0, 4]), np.array([1, 2, 3, 9])))
    assert torch.equal(one[:3], other[:3]) != sees_later


@pytest.mark.parametrize("sequence", ["sasrec", "bert4rec"])
def test_a_user_has_the_same_encoding_alone_and_in_a_batch(sequence):
    model = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=sequence))
    torch.nn.init.normal_(model.sequence.blocks[0].out.weight)
    lengths = [1, 3, 9, 11, 2]
    items = np.random.default_rng(0).integers(1, ITEMS + 1, sum(lengths))
    together = Histories(np.concatenate([[0], np.cumsum(lengths)]), items)
    rows = [model.encode(together.take(np.array([n]))) for n in range(len(lengths))]
    assert torch.allclose(model.encode(together), torch.cat(rows), atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_multi_head_attention_then_two_linear_layers(causal):
    block, packed = (
        Block(ModelSettings(dim=6, heads=2), causal=causal).eval(),
        pack(Histories(np.array([0, 4]), np.arange(1, 5))),
    )
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(4, 6)
    q, k, v = (block.norm_attention(x) @ block.qkv.weight.T + block.qkv.bias).split(6, 1)
    later = torch.zeros(4, 4).masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1) & causal, -torch.inf)
    mixed = [(q[:, h] @ k[:, h].T / 3**0.5 + later).softmax(1) @ v[:, h] for h in (slice(0, 3), slice(3, 6))]
    attended = x + torch.cat(mixed, 1) @ block.out.weight.T + block.out.bias
    wide = (block.norm_forward(attended) @ block.widen.weight.T + block.widen.bias).clamp(min=0.0)
    expected = attended + wide @ block.narrow.weight.T + block.narrow.bias
    torch.testing.assert_close(block(x, packed), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_no_item_sees_padding(causal):
    block, packed = Block(SMALL, causal=causal), pack(Histories(np.array([0, 9]), np.arange(1, 10)))
    torch.nn.init.normal_(block.out.weight)
    x = torch.randn(len(packed.items), 16)
    changed = x.masked_fill(~packed.real[:, None], 9.0)
    assert not packed.real.all()
    assert torch.equal(block(x, packed)[packed.tokens], block(changed, packed)[packed.tokens])


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_only_the_newest_items_up_to_the_limit_are_read(name):
    encoder = Create(ITEMS, ModelSettings(sequence_encoder=name)).sequence
    long = Histories(np.array([0, 8]), np.arange(1, 9))
    assert encoder.serving_inputs(long, 4).items.tolist() == ([5, 6, 7, 8] if name == "sasrec" else [6, 7, 8, 0])
    examples = encoder.examples(long, 4, np.random.default_rng(0))
    assert examples.inputs.lengths.tolist() == [4]
    assert examples.targets[-1] == 8
    if name == "sasrec":
        assert (examples.inputs.items.tolist(), examples.targets.tolist()) == ([4, 5, 6, 7], [5, 6, 7, 8])


@pytest.mark.parametrize(("mask_share", "masked"), [(0.0, 1.0), (1.0, 4.5)])
def test_bert4rec_masks_its_share_of_half_the_histories_and_the_newest_item_of_the_others(mask_share, masked):
    histories = circles(users=1000)
    encoder = Create(ITEMS, ModelSettings(sequence_encoder="bert4rec", mask_share=mask_share)).sequence
    examples = encoder.examples(histories, 50, np.random.default_rng(0))
    assert examples.targets.tolist() == histories.items[examples.predicted].tolist()
    assert np.flatnonzero(examples.inputs.items == 0).tolist() == examples.predicted.tolist()
    assert len(examples.predicted) / len(histories) == pytest.approx(masked, rel=0.1)
    assert set(histories.indptr[1:] - 1) <= set(examples.predicted)


@pytest.mark.parametrize(
    "chosen",
    [{"graph_encoder": "ultragcn"}, {"graph_encoder": "lightgcn"}],
    ids=str,
)
def test_the_gradient_of_a_graph_loss_is_its_slope_in_every_item_and_user_row(chosen):
    torch.manual_seed(0)
    table, drawn = torch.nn.Embedding(ITEMS + 1, 4), torch.tensor([2, 5])
    graph = graph_encoder(circles(), table, torch.randn(24, 4), TrainingSettings(**chosen))
    edges = graph.draw(np.arange(24), torch.Generator().manual_seed(0))

    def loss() -> tuple[torch.Tensor, torch.Tensor]:
        return graph.loss(edges, [table(w) for w in edges.wanted], drawn, table(drawn))

    value, view = loss()
    value.backward()
    of_users = view.grad if view.is_leaf else graph.users.rows.grad  # UltraGCN's view is the rows themselves
    for rows, gradient in ((table.weight, table.weight.grad), (graph.users.rows, of_users)):
        slopes, cells = torch.zeros(rows.numel()), rows.detach().view(-1)
        for cell in range(rows.numel()):
            cells[cell] += 5e-2
            above = loss()[0].item()
            cells[cell] -= 1e-1
            slopes[cell] = (above - loss()[0].item()) / 1e-1
            cells[cell] += 5e-2
        largest = gradient.abs().max().item()
        assert largest > 1e-3
        torch.testing.assert_close(gradient, slopes.view_as(rows), rtol=5e-3, atol=1e-3 * largest)  # single precision


def test_barlow_twins_compares_the_correlations_with_the_identity():
    a, b = torch.randn(6, 3), torch.randn(6, 3)
    c = np.corrcoef(a.numpy(), b.numpy(), rowvar=False)[:3, 3:]
    expected = sum((1 - c[i, i]) ** 2 for i in range(3))
    expected += 0.1 * sum(c[i, j] ** 2 for i, j in itertools.permutations(range(3), 2))
    assert barlow_twins(a, b, 0.1).item() == pytest.approx(expected / 3, rel=1e-3)


def test_infonce_classifies_each_view_of_a_user_among_the_other_views():
    a, b = torch.randn(6, 3), torch.randn(6, 3)
    alike = torch.cosine_similarity(a[:, None], b[None], dim=2) / 0.2
    expected = -(alike.log_softmax(1) + alike.log_softmax(0)).diagonal().mean() / 2
    assert infonce(a, b, 0.2).item() == pytest.approx(expected.item(), rel=1e-5)


def test_sampled_softmax_over_all_items_equals_the_softmax():
    torch.manual_seed(0)
    table, encoded = torch.randn(6, 4), torch.randn(3, 4)
    target = torch.tensor([1, 3, 5])
    sampled = sampled_softmax(encoded, table[target], target, table, torch.arange(6), 6)
    assert sampled.item() == pytest.approx(
        torch.nn.functional.cross_entropy(encoded @ table.T, target).item(), rel=1e-5
    )


def test_sampled_softmax_estimates_the_sum_over_all_items_without_bias():
    """The mean over all draws of the corrected sum over the negatives is the sum over all items."""
    torch.manual_seed(0)
    table, encoded = torch.randn(6, 4), torch.randn(1, 4)
    target, own = torch.tensor([3]), (encoded @ table.T)[0].exp()
    sums = []
    for drawn in map(torch.tensor, itertools.combinations(range(6), 2)):
        loss = sampled_softmax(encoded, table[target], target, table[drawn], drawn, 6)
        sums.append(own[3] * loss.exp())  # loss = -log(own / sum)
    assert torch.stack(sums).mean().item() == pytest.approx(own.sum().item(), rel=1e-5)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (lambda a, b: barlow_twins(a, b, 0.1), [(6, 3), (6, 3)]),
        (lambda a, b: infonce(a, b, 0.2), [(6, 3), (6, 3)]),
        (
            lambda h, own, negatives: sampled_softmax(
                h, own, torch.tensor([1, 2]), negatives, torch.tensor([2, 3, 4]), 9
            ),
            [(2, 3), (2, 3), (3, 3)],
        ),
    ],
    ids=["barlow_twins", "infonce", "sampled_softmax"],
)
def test_the_gradient_of_a_loss_is_its_slope(loss, shapes):
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(loss, [rows(*shape) for shape in shapes])


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_the_gradient_of_a_sequence_encoder_is_its_slope(name):
    """With respect to the inputs and every parameter. Output projections are not zero here."""
    torch.manual_seed(0)
    settings = ModelSettings(dim=4, layers=2, dropout=0.0, sequence_events=4, sequence_encoder=name)
    encoder = Create(ITEMS, settings).sequence.double().eval()
    packed = pack(Histories(np.array([0, 3, 4]), np.array([1, 2, 3, 4])))
    names = [name for name, _ in encoder.named_parameters()]

    def encoded(read: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        by_name = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(encoder, by_name, (read, packed))[packed.tokens]

    drawn = [rows(*parameter.shape) for parameter in encoder.parameters()]
    assert torch.autograd.gradcheck(encoded, [rows(len(packed.items), 4), *drawn])


@pytest.mark.parametrize("name", ["ultragcn", "lightgcn"])
def test_a_user_has_edges_to_the_newest_items_only(name):
    histories, table = Histories(np.array([0, 3, 4]), np.array([1, 2, 3, 3])), torch.nn.Embedding(4, 4)
    graph = graph_encoder(histories, table, torch.zeros(2, 4), TrainingSettings(graph_encoder=name, graph_events=1))
    edges = graph.draw(np.arange(2), torch.Generator().manual_seed(0))
    assert (edges.wanted[0] if name == "ultragcn" else edges.item).tolist() == [3, 3]
    assert edges.user.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["ultragcn", "lightgcn"])
def test_user_rows_are_updated_as_by_adam(name):
    first, wanted = torch.randn(24, 4), torch.randn(24, 4)
    settings = TrainingSettings(graph_encoder=name)
    graph = graph_encoder(circles(), torch.nn.Embedding(ITEMS + 1, 4), first.clone(), settings)
    reference = torch.nn.Parameter(first.clone())
    adam = torch.optim.Adam([reference], settings.graph_learning_rate)
    for scale in (1.0, 100.0, 0.01, 1.0):
        adam.zero_grad()
        (scale * (reference - wanted) ** 2).sum().backward()
        adam.step()
        rows = graph.users.leaf(torch.arange(24)) if name == "ultragcn" else graph.users.rows
        (scale * (rows - wanted) ** 2).sum().backward()
        graph.step()
        torch.testing.assert_close(graph.users.rows, reference, rtol=1e-5, atol=1e-6)


def test_rows_of_users_outside_the_batch_do_not_change():
    user_rows = torch.randn(24, 4)
    graph = graph_encoder(circles(), torch.nn.Embedding(ITEMS + 1, 4), user_rows.clone(), SETTINGS)
    graph.view(np.arange(3)).sum().backward()
    graph.step()
    moved = graph.users.rows.clone()
    graph.step()
    assert torch.equal(graph.users.rows, moved)
    assert torch.equal(moved[3:], user_rows[3:])
    assert not torch.equal(moved[:3], user_rows[:3])


ANOTHER_ENCODER_SOURCE = """
from model.encoders.sasrec import SASRec
from model.encoders.ultragcn import UltraGCN

class Another(SASRec): ...
class AnotherGraph(UltraGCN): ...
"""
TRAIN_ANOTHER_SCRIPT = """
import msgspec
from model.encoders.create import Create
from model.settings import ModelSettings, TrainingSettings
from model.learning.training import Schedule, train
from tests.model.encoders.test_encoders import ITEMS, circles

model = Create(ITEMS, msgspec.convert({"dim": 16, "sequence_encoder": "another"}, ModelSettings))
settings = msgspec.convert({"graph_encoder": "another", "lazy_items": 1, "loss": "sampled"}, TrainingSettings)
schedule = Schedule(epochs=2, learning_rate=1e-3, seed=1, warm_up_epochs=1, from_scratch=True)
spent = train(model, circles(), settings, schedule)
print(type(model.sequence).__name__, spent.epochs)
"""


def test_another_encoder_needs_a_file_and_one_line_in_the_settings(tmp_path):
    for package in ("state", "model"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "model" / "another.py").write_text(ANOTHER_ENCODER_SOURCE)
    settings = (tmp_path / "model" / "settings.py").read_text()
    for names, kind in (("SEQUENCE_ENCODERS", "Another"), ("GRAPH_ENCODERS", "AnotherGraph")):
        settings = settings.replace(f"{names} = {{", f'{names} = {{"another": "model.another:{kind}", ')
    (tmp_path / "model" / "settings.py").write_text(settings)
    found = subprocess.run(
        [sys.executable, "-c", TRAIN_ANOTHER_SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert found.stdout.split() == ["Another", "2"], found.stderr


@pytest.mark.parametrize(("epochs", "max_train_s", "done"), [(3, 600.0, 3), (0, 600.0, 0), (3, 1e-9, 0)])
def test_only_finished_epochs_are_counted(epochs, max_train_s, done):
    settings = TrainingSettings(max_train_s=max_train_s)
    model = Create(ITEMS, SMALL)
    spent = train(model, circles(), settings, Schedule(epochs=epochs, learning_rate=1e-3, seed=1, from_scratch=True))
    assert spent.epochs == done


def test_the_same_seed_gives_the_same_weights_with_every_pair_of_encoders():
    for sequence, graph in itertools.product(SEQUENCE_ENCODERS, GRAPH_ENCODERS):
        models = []
        for _ in range(2):
            torch.manual_seed(3)
            model = Create(ITEMS, msgspec.structs.replace(SMALL, sequence_encoder=sequence))
            settings = TrainingSettings(graph_encoder=graph, w_global=0.3, threads=2)
            train(
                model,
                circles(),
                settings,
                Schedule(epochs=2, learning_rate=1e-3, seed=1, warm_up_epochs=2, from_scratch=True),
            )
            models.append(model)
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert torch.equal(a, b)
