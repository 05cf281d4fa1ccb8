"""Holds requests to the service names that their caller may write and read.

A request with one foreign name is refused whole, before anything else is looked at: what is not the caller's to
touch is none of the things that can be right or wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from ingestor.caller import CALLER
from ingestor.errors import Forbidden

_NAME_SHOWN_MAX = 100


def permit_writing(service_names: Callable[[], Iterable[str]]) -> None:
    """Raises Forbidden, with the first of these that the caller may not write. They are asked for only where the
    caller is limited."""
    caller = CALLER.get()
    if caller.writes_all:
        return
    for name in service_names():
        if not caller.may_write(name):
            raise _forbidden("write metrics of", name, caller.write_prefixes)


def permit_writing_one(service_name: str) -> None:
    """The same of one name."""
    caller = CALLER.get()
    if not caller.writes_all and not caller.may_write(service_name):
        raise _forbidden("write metrics of", service_name, caller.write_prefixes)


def permit_writing_column(rows: pa.StructArray) -> None:
    """The same for rows with a column `service_name`, without an object for each."""
    caller = CALLER.get()
    if caller.writes_all:
        return
    names: pa.StringArray = rows.field("service_name")
    good: pa.BooleanArray | None = None
    for prefix in caller.write_prefixes:
        begins = pc.starts_with(names, pattern=prefix)
        good = begins if good is None else pc.or_(good, begins)
        if good.true_count == len(names):
            return
    first = 0 if good is None else pc.index(good, False).as_py()
    raise _forbidden("write metrics of", names[first].as_py(), caller.write_prefixes)


def permit_reading(service_name: str) -> None:
    """Raises Forbidden when the caller may not read what this names, a service or a prefix of several."""
    caller = CALLER.get()
    if not caller.may_read(service_name):
        raise _forbidden("read metrics of", service_name, caller.read_prefixes)


def _forbidden(what: str, name: str, prefixes: tuple[str, ...]) -> Forbidden:
    allowed = ", ".join(f"{prefix}*" for prefix in prefixes)
    return Forbidden(f"the key may not {what} {name[:_NAME_SHOWN_MAX]!r}, only of {allowed}")
