"""A version survives publication, and one that was damaged is refused."""

import json

import pytest
import torch

from model.errors import ArtifactError
from model.learning.gate import Verdict
from model.learning.versions import list_versions, load, prune, publish
from tests.model.examples import cycling, learned


def test_a_published_version_loads_as_it_was(tmp_path):
    trained = learned(cycling())
    version = publish(str(tmp_path), "create", trained, {0: 120})
    again = load(str(tmp_path), "create", version.manifest.version, version.manifest_sha256)
    assert again.manifest.offsets == {0: 120}
    assert again.trained.vocabulary.ids == trained.vocabulary.ids
    for a, b in zip(again.trained.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("file", ["weights.safetensors", "items.msgpack", "manifest.json"])
def test_a_version_that_is_not_what_it_says_is_refused_by_the_name_of_the_file(tmp_path, file):
    version = publish(str(tmp_path), "create", learned(cycling()), {})
    path = tmp_path / "create" / "000001" / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=file):
        load(str(tmp_path), "create", "000001", version.manifest_sha256)


def test_versions_live_in_any_store_and_the_serving_one_is_never_pruned():
    url = "memory://artifacts"
    trained = learned(cycling())
    for _ in range(3):
        publish(url, "create", trained, {})
    assert prune(url, "create", 1, needed=["000001"]) == ["000002"]
    assert [m.version for m in list_versions(url, "create")] == ["000001", "000003"]


def test_a_manifest_of_before_outcomes_opens_and_its_outcome_follows_from_what_it_has(tmp_path):
    version = publish(str(tmp_path), "create", learned(cycling()), {0: 120})
    file = tmp_path / "create" / "000001" / "manifest.json"
    for promoted, outcome in ((True, "promoted"), (False, "kept")):
        manifest = json.loads(file.read_bytes())
        assert manifest["verdict"].keys() >= {"promoted", "reason"}
        manifest["verdict"] = {"promoted": promoted, "reason": "as it was written"}
        file.write_text(json.dumps(manifest))
        verdict = load(str(tmp_path), "create", version.manifest.version).manifest.verdict
        assert verdict == Verdict(promoted, "as it was written", outcome)
