"""The address that a setting `http` names."""

import re
from typing import NamedTuple

ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^\s:\[\]/@]*)):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """Where a process listens. An empty host: every address of the machine; port 0: one that the system chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address in a setting. Raises ValueError with the reason.

    >>> parse_address("127.0.0.1:8081"), parse_address(":8081"), parse_address("[::1]:8081")
    (Address(host='127.0.0.1', port=8081), Address(host='', port=8081), Address(host='::1', port=8081))
    """
    found = ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) >= 1 << 16:
        raise ValueError(
            "is not HOST:PORT with a port from 0 to 65535, as in '127.0.0.1:8081'; ':8081' is every address of the "
            "machine, and an IPv6 address is in brackets: '[::1]:8081'"
        )
    return Address(found["six"] or found["host"] or "", int(found["port"]))
