"""The setting `http`: which addresses are accepted, and what is said of others."""

import pytest

from stream.errors import ConfigError
from stream.http.address import Address, parse_address
from stream.load_config import load


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8081", "127.0.0.1", 8081),
        ("localhost:8081", "localhost", 8081),
        ("worker-0.shop.svc:8081", "worker-0.shop.svc", 8081),
        (":8081", "", 8081),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::]:8081", "::", 8081),
        ("[fe80::1%eth0]:8081", "fe80::1%eth0", 8081),
        ("127.0.0.1:0", "127.0.0.1", 0),
    ],
)
def test_an_address_has_a_host_and_a_port(text, host, port):
    found = parse_address(text)
    assert found == (host, port)
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "8081", "localhost", "localhost:", ":", "::1:8081", "127.0.0.1:99999", "127.0.0.1:-1", "http://localhost:8081",
        "localhost:8081/metrics", "user@host:1", "a b:1", "[::1]", "[::1:80", "localhost:80 ", "localhost:0x50",
        "[]:80",
    ],
)  # fmt: skip
def test_another_text_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"'127.0.0.1:8081'.*':8081'.*brackets"):
        parse_address(text)


@pytest.mark.parametrize("section", ["WORKER", "TRAINER", "SERVE"])
def test_the_setting_is_named_with_its_value(section):
    with pytest.raises(ConfigError, match=rf"{section.lower()}.*http = '8081' is not HOST:PORT"):
        load(env={f"ANABRANCH_{section}__HTTP": "8081"})


def test_an_empty_setting_is_no_address():
    assert load(env={"ANABRANCH_WORKER__HTTP": ""}).worker.http == ""


def test_an_address_is_shown_as_it_is_written():
    assert str(Address("::1", 80)) == "[::1]:80"
