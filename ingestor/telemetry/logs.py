"""Log lines by loguru, as text or as JSON, those of other libraries among them.

It writes to stderr alone, and it never logs what a request carried.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message

_TEXT = "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> <level>{level: <8}</level> {message}"
# Chatty below WARNING: grpclib logs each cancelled call, aiohttp each request, asyncio each selector.
_QUIET = ("grpclib", "aiohttp", "asyncio", "hpack", "h2")


# A traceback shows code and never the values in it: those are requests, and secrets.
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


def _text_line(record: object) -> str:
    extra = record["extra"]  # type: ignore[index] # loguru's Record is a TypedDict in its stub alone
    fields = "".join(f" {name}={{extra[{name}]!r}}" for name, value in extra.items() if value is not None)
    return f"{_TEXT}<dim>{fields}</dim>\n{{exception}}"


class _JsonLines:
    """A sink that writes each record as one JSON object."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, message: Message) -> None:
        record = message.record
        line: dict[str, object] = {
            "time": record["time"].isoformat(),
            "level": record["level"].name,
            "message": record["message"],
            "logger": record["name"],
            **{name: value for name, value in record["extra"].items() if value is not None},
        }
        if record["exception"] is not None:
            line["exception"] = str(message).removeprefix(record["message"]).strip()
        self._stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        self._stream.flush()
