"""What `ingestor top` shows fits where it is shown, and how long it waits has a bound."""

from __future__ import annotations

import pytest
from rich.console import Console

from ingestor.terminal.readings import Between, Reading
from ingestor.terminal.top import _figures, _services, _wait_s

_NAME = "a service of many words and of a name that is longer than any terminal here is wide"


def between() -> Between:
    """As long as figures become."""
    return Between(Reading.of(_told(1), 1.0), Reading.of(_told(3), 2.0))


def _told(times: int) -> str:
    lines = [
        f"ingestor_metrics_committed_total {1_234_567 * times}",
        f"ingestor_metrics_pending {234_567 * times}",
        f'ingestor_service_metrics_committed_total{{service="{_NAME}"}} {1_234_567 * times}',
        "ingestor_journal_bytes 8000000",
        "ingestor_journal_bytes_max 4294967296",
    ]
    for name, labels in (("ingestor_rpc_seconds", 'rpc="a/LogMetrics",'), ("ingestor_flush_seconds", "")):
        lines.append(f"# TYPE {name} histogram")
        lines += [f'{name}_bucket{{{labels}le="{bound}"}} {times * 100}' for bound in ("0.9", "+Inf")]
    return "\n".join(lines) + "\n"


def shown(width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(_figures(between(), console), _services(between()))
    return captured.get()


@pytest.mark.parametrize("width", [40, 50, 60, 80, 120])
def test_figures_are_whole_at_any_width(width: int) -> None:
    """Of a name its beginning is enough."""
    text = shown(width)
    for figure in ("2.47 M/s", "p50 450 ms  p99 891 ms", "7.63 MiB of 4 GiB", "703,701", "100%", "a service"):
        assert figure in text
    assert "acknowledged in" in text
    assert text.count("2.47 M/s") == 2
    assert max(map(len, text.splitlines())) <= width


def test_they_stand_beside_each_other_where_there_is_room() -> None:
    assert len(shown(80).splitlines()) < len(shown(60).splitlines())


def test_the_wait_for_a_server_that_is_away_has_a_bound() -> None:
    """However long it is."""
    assert [_wait_s(1.0, failures) for failures in (0, 1, 4, 5, 2_000)] == [1.0, 2.0, 16.0, 30.0, 30.0]
    assert _wait_s(0.1, 2_000) == 30.0
    assert _wait_s(60.0, 2_000) == 60.0
