"""A published version loads unchanged, and a damaged version is rejected."""

import json

import pytest
import torch

from model.errors import ArtifactError
from model.learning.gate import Verdict
from model.learning.versions import list_versions, load, prune, publish
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
