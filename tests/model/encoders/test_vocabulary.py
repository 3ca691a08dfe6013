"""Items keep their indices when their ids are hashed with another key."""

import numpy as np

from model.encoders.vocabulary import Vocabulary
from state.events import hash_ids
from state.id_hash import UNKEYED, IdHash, new_key


def test_a_version_is_read_under_any_id_key_and_free_indices_stay_free():
    plain = Vocabulary(hash_ids([b"milk", b"bread", b"tea"]), ["milk", "bread", "tea"])
    released, ids = plain.release(hash_ids([b"bread"])), IdHash(new_key())
    keyed = released.hashed_by(ids)
    assert keyed.ids == released.ids
    assert keyed.free.tolist() == [2]
    assert keyed.lookup(ids.of_many([b"tea", b"milk", b"bread"])).tolist() == [3, 1, 0]
    assert keyed.lookup(hash_ids([b"tea", b"milk"])).tolist() == [0, 0]
    assert keyed.hashed_by(UNKEYED).hashes.tolist() == released.hashes.tolist()
    assert Vocabulary(np.empty(0, np.uint64), []).hashed_by(ids).ids == []
