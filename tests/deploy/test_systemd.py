"""The systemd unit and its environment file name settings that there are."""

from __future__ import annotations

import re
from configparser import ConfigParser

from tests.deploy import image
from tests.deploy.grafana import DEPLOY

UNIT = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
UNIT.optionxform = str  # type: ignore[assignment, method-assign]
UNIT.read_string((DEPLOY / "ingestor.service").read_text())
SERVICE = UNIT["Service"]


def test_settings() -> None:
    """Those in force and those that are examples, each with a value that it can have."""
    file = (DEPLOY / "ingestor.env").read_text()
    environment = dict(re.findall(r"^#?(INGESTOR_\w+)=(.+)$", file, re.MULTILINE))
    assert len(environment) >= 5
    name, _, value = SERVICE["Environment"].partition("=")
    found = image.settings({**environment, name: value}, base={})
    assert str(found.data_dir) == f"/var/lib/{SERVICE['StateDirectory']}"


def test_the_stop_lasts_longer_than_the_drain() -> None:
    """So that what is queued can be stored."""
    drain = image.settings({}, base={}).drain_timeout
    assert int(SERVICE["TimeoutStopSec"]) >= drain.total_seconds() + 10
