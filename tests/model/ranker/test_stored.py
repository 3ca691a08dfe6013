"""The file of a ranker: it comes back as it was, one of other features is skipped, and whatever else is refused."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.ranker.learning import new_ranker
from model.ranker.stored import MAX_RANKER_BYTES, decode, encode

RANKER = new_ranker(5, 1, seed=3)
FILE = encode(RANKER, "these-columns", "000007")


def test_a_ranker_comes_back_with_its_version():
    found = decode(FILE, 5, "these-columns")
    assert found.version == "000007"
    assert found.ranker is not None
    for name, tensor in RANKER.state_dict().items():
        assert torch.equal(found.ranker.state_dict()[name], tensor)


def test_a_ranker_of_other_columns_is_skipped():
    assert decode(FILE, 5, "other-columns") == (None, "000007")
    assert decode(FILE, 8, "eight-columns") == (None, "000007")
    assert decode(save_tensors({"anything": torch.zeros(3)}), 5, "these-columns").ranker is None


def changed(**tensors):
    about = {"features": "these-columns-64-32", "version": ""}
    return save_tensors({k: v for k, v in (load_tensors(FILE) | tensors).items() if v is not None}, about)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
        FILE[:-1],
        struct.pack("<Q", 1 << 62) + FILE[8:],
        FILE + bytes(MAX_RANKER_BYTES),
        changed(mean=None),
        changed(more=torch.zeros(1)),
        changed(mean=torch.zeros(4)),
        changed(mean=torch.zeros(5, dtype=torch.float64)),
        changed(mean=torch.tensor([0.0, 0.0, 0.0, 0.0, torch.nan])),
        changed(spread=torch.tensor([1.0, 1.0, 1.0, 1.0, torch.inf])),
        changed(spread=torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])),
        changed(spread=-torch.ones(5)),
    ],
)
def test_a_malformed_ranker_is_refused(content):
    with pytest.raises(ValueError, match="its ranker"):
        decode(content, 5, "these-columns")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_bytes_have_changed_a_ranker_is_read_skipped_or_refused(data):
    content = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(content), 5, "these-columns")
    except ValueError:
        return
    if found.ranker is not None:
        assert all(torch.isfinite(tensor).all() for tensor in found.ranker.state_dict().values())
        assert (found.ranker.spread > 0).all()
