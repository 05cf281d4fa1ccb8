"""`ingestor tail`: metrics as they are committed, a line each.

It slows nobody down: what it is too slow for is dropped by the server, and how many those were is said on stderr.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from ingestor.errors import StartupError
from ingestor.output import writing
from ingestor.terminal.client import connected
from ingestor.terminal.format import plain


async def tail(address: str, key: str | None, *, service: str, metric: str, as_json: bool) -> int:
    """Prints what is committed from now on, until it is cancelled or nobody reads it any more. Raises ServerProblem
    and BadSetting."""
    parameters = {"service_name": service, "metric_name": metric}
    async with connected(address, key) as client:
        asked = {name: value for name, value in parameters.items() if value}
        async for message in client.lines("v1/metrics:tail", asked):
            if dropped := int(message.get("dropped", 0)):
                print(f"ingestor: {dropped:,} metrics are not shown: they came too fast", file=sys.stderr)  # noqa: T201
            if not _printed([_json(each) if as_json else _line(each) for each in message["metrics"]]):
                return 0
    raise StartupError(f"the server at {client.address} ended the stream")


def _printed(lines: list[str]) -> bool:
    """Prints them; False when nobody reads them. Raises StartupError where they can't be written."""
    try:
        with writing():
            for line in lines:
                print(line)  # noqa: T201
            sys.stdout.flush()
    except StartupError as problem:
        if isinstance(problem.__cause__, BrokenPipeError):
            return False
        raise
    return True


def _json(metric: dict[str, Any]) -> str:
    """As the server wrote it: it can be sent again. JSON has escapes of its own for what can't be shown."""
    text = json.dumps(metric, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() else json.dumps(metric, separators=(",", ":"))


def _line(metric: dict[str, Any]) -> str:
    time = datetime.fromisoformat(metric["time"]).astimezone()
    labels = "".join(f"  {name}={value}" for name, value in sorted(metric.get("labels", {}).items()))
    text = (
        f"{time:%H:%M:%S}.{time.microsecond // 1000:03}  {metric['serviceName']}  {metric['metricName']}"
        f"  {metric['value']}{labels}"
    )
    return plain(text)
