"""The address of the database, as it may be written.

None is taken of which a part of the password could be taken for anything else, and then shown.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, SecretStr

EMBEDDED = "embedded"

_FORM = (
    f"must read postgresql://USER:PASSWORD@HOST:PORT/DATABASE (or `{EMBEDDED}`), with / # ? @ : in a password"
    " written as %2F %23 %3F %40 %3A"
)
_HOST_AND_PORT = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]+))?")
_PORT_MAX = 65_535


def _checked(value: SecretStr) -> SecretStr:
    address = value.get_secret_value()
    if address not in ("", EMBEDDED) and not _is_address(address):
        raise ValueError(_FORM)
    return value


def _is_address(address: str) -> bool:
    """Whether it is a PostgreSQL address from which no part of a password can be taken for anything else."""
    try:
        parts = urlsplit(address)
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        return False
    login, _, hosts = parts.netloc.rpartition("@")
    # One slash will do, which is what urlunsplit makes of an address without a host.
    if not re.match(r"postgres(ql)?:/", address, re.IGNORECASE) or "#" in address:
        return False
    if "@" in login or "@" in parts.path or "@" in parts.query:
        return False
    lists = [*([hosts] if hosts else []), *query.get("host", [])]
    ports = [port for listed in query.get("port", []) for port in listed.split(",")]
    return all(_is_host(host) for listed in lists for host in listed.split(",")) and all(map(_is_port, ports))


def _is_host(text: str) -> bool:
    if text.startswith("/"):
        return True
    match = _HOST_AND_PORT.fullmatch(text)
    return bool(text) and match is not None and (match[1] is None or _is_port(match[1]))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= _PORT_MAX


DatabaseAddress = Annotated[SecretStr, AfterValidator(_checked)]
