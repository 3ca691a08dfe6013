"""The description of the interface, and the page that is written from it."""

import runpy
from pathlib import Path

from state.settings import KINDS, Kind, StateSettings
from stream.http.openapi import description
from stream.http.routes import ROUTES

ROOT = Path(__file__).parent.parent.parent.parent


def test_the_page_is_written_from_the_description():
    written = runpy.run_path(str(ROOT / "docs/write_http.py"))["page"]()
    assert (ROOT / "docs/http.md").read_text() == written, "run `make docs`"


def test_every_route_and_each_of_its_errors_is_described():
    paths = description("1")["paths"]
    for route in ROUTES:
        operation = paths[route.path][route.method.lower()]
        assert {int(status) for status in operation["responses"]} == {route.status, *route.errors}
        assert operation["description"]


def test_every_reference_has_a_target_and_every_field_of_an_answer_a_type():
    document = description("1")
    schemas = document["components"]["schemas"]

    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"].rpartition("/")[2]} if "$ref" in node else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert references(document) == set(schemas)


def test_the_kinds_of_events_are_those_of_the_settings():
    state = StateSettings(kinds=KINDS | {"wish": Kind("positive"), "leave": Kind("forget")})
    schemas = description("1", state=state)["components"]["schemas"]
    assert "wish" in schemas["SentEvent"]["properties"]["event"]["anyOf"][0]["enum"]
    assert set(schemas["SentForget"]["properties"]["event"]["enum"]) == {"forget", "leave"}
