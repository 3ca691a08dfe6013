"""A small JSON file is replaced as a whole, and a broken one counts as missing."""

from stream.files import json_file


def test_a_document_is_read_back(tmp_path):
    json_file.write(tmp_path / "a.json", {"count": 1})
    json_file.write(tmp_path / "a.json", {"count": 2})
    assert json_file.read(tmp_path / "a.json", dict[str, int]) == {"count": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_or_broken_file_or_another_document_reads_as_none(tmp_path):
    assert json_file.read(tmp_path / "a.json", dict[str, int]) is None
    (tmp_path / "a.json").write_text('{"count":')
    assert json_file.read(tmp_path / "a.json", dict[str, int]) is None
    json_file.write(tmp_path / "a.json", ["count"])
    assert json_file.read(tmp_path / "a.json", dict[str, int]) is None
