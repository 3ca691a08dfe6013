"""A published version loads unchanged, and a damaged version is rejected."""

import json

import pytest
import torch

from model.errors import ArtifactError
from model.learning.gate import Verdict
from model.learning.trained import Trained
from model.learning.versions import RANKER, list_versions, load, prune, publish, read_files, sign_version
from model.ranker.learning import new_ranker
from model.ranking.features import NAMES, START
from tests.model.examples import cycling, learned


def test_a_published_version_loads_unchanged(tmp_path):
    trained = learned(cycling())
    version = publish(str(tmp_path), "create", trained, {0: 120})
    again = load(str(tmp_path), "create", version.manifest.version, version.manifest_sha256)
    assert again.manifest.offsets == {0: 120}
    assert again.trained.vocabulary.ids == trained.vocabulary.ids
    for a, b in zip(again.trained.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("file", ["weights.safetensors", "items.msgpack", "manifest.json"])
def test_the_error_for_a_damaged_version_names_the_file(tmp_path, file):
    version = publish(str(tmp_path), "create", learned(cycling()), {})
    path = tmp_path / "create" / "000001" / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=file):
        load(str(tmp_path), "create", "000001", version.manifest_sha256)


def test_versions_can_be_in_any_store_and_a_needed_version_is_never_pruned():
    url = "memory://artifacts"
    trained = learned(cycling())
    for _ in range(3):
        publish(url, "create", trained, {})
    assert prune(url, "create", 1, needed=["000001"]) == ["000002"]
    assert [m.version for m in list_versions(url, "create")] == ["000001", "000003"]


def test_a_manifest_without_an_outcome_opens_and_its_outcome_follows_from_promoted(tmp_path):
    version = publish(str(tmp_path), "create", learned(cycling()), {0: 120})
    file = tmp_path / "create" / "000001" / "manifest.json"
    for promoted, outcome in ((True, "promoted"), (False, "kept")):
        manifest = json.loads(file.read_bytes())
        assert manifest["verdict"].keys() >= {"promoted", "reason"}
        manifest["verdict"] = {"promoted": promoted, "reason": "as it was written"}
        file.write_text(json.dumps(manifest))
        verdict = load(str(tmp_path), "create", version.manifest.version).manifest.verdict
        assert verdict == Verdict(promoted, "as it was written", outcome)


def with_ranker(version: int = 1) -> Trained:
    ranker = new_ranker(len(NAMES), START, seed=version)
    return learned(cycling())._replace(ranker=ranker, ranker_ts=1_000 * version)


def test_a_version_carries_its_ranker_and_the_time_of_its_newest_example(tmp_path):
    trained = with_ranker()
    version = publish(str(tmp_path), "create", trained, {0: 120})
    again = load(str(tmp_path), "create", version.manifest.version, version.manifest_sha256).trained
    assert again.ranker_ts == 1_000
    for name, tensor in trained.ranker.state_dict().items():
        assert torch.equal(again.ranker.state_dict()[name], tensor)
    assert RANKER in read_files(str(tmp_path), "create", "000001")


def test_a_version_without_a_ranker_is_as_versions_were_before_there_were_rankers(tmp_path):
    publish(str(tmp_path), "create", learned(cycling(), ranker=False), {0: 120})
    file = tmp_path / "create" / "000001" / "manifest.json"
    manifest = json.loads(file.read_bytes())
    assert sorted(manifest["sha256"]) == ["items.msgpack", "weights.safetensors"]
    del manifest["ranker_ts"]
    file.write_text(json.dumps(manifest))
    trained = load(str(tmp_path), "create", "000001").trained
    assert (trained.ranker, trained.ranker_ts) == (None, 0)
    assert sorted(read_files(str(tmp_path), "create", "000001")) == sorted([*manifest["sha256"], "manifest.json"])


def test_a_version_is_signed_with_its_ranker_and_pruned_with_it(tmp_path):
    url, keys = str(tmp_path), ("k" * 32,)
    for version in (1, 2):
        publish(url, "create", with_ranker(version), {}, keys)
    sign_version(url, "create", "000001", keys)
    assert load(url, "create", "000001", keys=keys).trained.ranker_ts == 1_000
    (tmp_path / "create" / "000001" / RANKER).write_bytes(b"?")
    with pytest.raises(ArtifactError, match=RANKER):
        sign_version(url, "create", "000001", keys)
    assert prune(url, "create", 1, needed=[]) == ["000001"]
    assert not (tmp_path / "create" / "000001").exists()
    assert load(url, "create", "000002", keys=keys).trained.ranker_ts == 2_000
