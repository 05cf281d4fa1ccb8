"""Log lines by loguru, as text or as JSON, those of other libraries among them.

It writes to stderr alone, it never logs what a request carried, and whatever a line is made of stays in that line:
what could end it, or move a terminal's cursor, is written as an escape.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

from ingestor.telemetry.tracebacks import traceback_of

if TYPE_CHECKING:
    from loguru import Message

_TEXT = "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> <level>{level: <8}</level> {line}"
# Chatty below WARNING: grpclib logs each cancelled call, aiohttp each request, asyncio each selector.
_QUIET = ("grpclib", "aiohttp", "asyncio", "hpack", "h2")
# Controls, what separates lines or turns the direction of writing, and half surrogate pairs, which no UTF-8 has.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_MESSAGE_CHARACTERS_MAX = 4_000
_INDENT = "    "

# loguru's own tracebacks aren't printed; this keeps it from collecting values for them.
_NO_VALUES: Any = {"backtrace": False, "diagnose": False}


class _ToLoguru(logging.Handler):
    """Hands the records of the standard library's logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.bind(logger=record.name).opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def configure(log_format: str, log_level: str, stream: TextIO = sys.stderr) -> None:
    """Makes loguru (and the standard library's logging through it) write to `stream`.

    `log_format` is `text` or `json` (one object a line: time in RFC 3339, level, message, logger, the bound
    fields, and the exception as text).
    """
    logger.remove()
    if log_format == "json":
        logger.add(_JsonLines(stream), level=log_level, format="{message}", **_NO_VALUES)
    else:
        logger.add(stream, level=log_level, format=_text_line, **_NO_VALUES)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.NOTSET, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _text_line(record: Any) -> str:
    message = record["message"]
    record["line"] = _escaped(
        message[:_MESSAGE_CHARACTERS_MAX] + "…" * (len(message) > _MESSAGE_CHARACTERS_MAX)
    )
    extra = {name: value for name, value in record["extra"].items() if value is not None}
    record["fields"] = _escaped("".join(f" {name}={value!r}" for name, value in extra.items()))
    if record["exception"] is None or record["exception"].value is None:
        return f"{_TEXT}<dim>{{fields}}</dim>\n"
    record["traceback"] = _indented(traceback_of(record["exception"].value))
    return f"{_TEXT}<dim>{{fields}}</dim>\n{{traceback}}\n"


def _indented(text: str) -> str:
    """So that no line of it can be taken for one of the log's own."""
    return "\n".join(_INDENT + _escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _json_escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _JsonLines:
    """A sink that writes each record as one JSON object."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, message: Message) -> None:
        record = message.record
        line: dict[str, object] = {
            "time": record["time"].isoformat(),
            "level": record["level"].name,
            "message": record["message"][:_MESSAGE_CHARACTERS_MAX],
            "logger": record["name"],
            **{name: value for name, value in record["extra"].items() if value is not None},
        }
        if record["exception"] is not None and record["exception"].value is not None:
            line["exception"] = traceback_of(record["exception"].value)
        # JSON itself escapes but a part of it.
        self._stream.write(_json_escaped(json.dumps(line, ensure_ascii=False, default=str)) + "\n")
        self._stream.flush()
