"""What the command line means, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.loadgen import LoadPlan
from ingestor.loadgen.options import parse, seconds


@pytest.mark.parametrize(
    ("text", "value"), [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("2", 2)]
)
def test_durations_read_as_in_the_settings(text: str, value: float) -> None:
    """`250ms`, `30s`, `1h`; a bare number is seconds."""
    assert seconds(text) == value


def test_options_become_a_plan() -> None:
    """Every option that is given, and the plan's defaults for the others."""
    plan, options = parse(["--rate", "5", "--late", "7.5", "--duration", "2s", "--verify", "dsn"])
    assert plan == LoadPlan(rate=5, late_percent=7.5, duration_s=2, run_id=plan.run_id)
    assert (options.verify, options.settle_s, options.quiet) == ("dsn", 30.0, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "0"],
        ["--count", "1", "--duration", "1s"],
        ["--connections", "1"],
        ["--json", "/no/such/file"],
        ["--json", "/"],
    ],
)
def test_options_that_make_no_sense_are_refused_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line that names the option."""
    with pytest.raises(SystemExit) as exit_:
        parse(arguments)
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err.splitlines()[-1]


def test_a_refused_plan_leaves_the_last_report_alone(tmp_path: Path) -> None:
    """The file is opened, and emptied, only for a run that will fill it."""
    file = tmp_path / "report.json"
    file.write_text("the last one")
    with pytest.raises(SystemExit):
        parse(["--rate", "0", "--json", str(file)])
    assert file.read_text() == "the last one"
