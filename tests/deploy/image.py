"""What deploy/Dockerfile fixes, and how a server would take an environment over it.

It reads the file's own words; no image is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ingestor.settings import PREFIX, Settings, alone, unknown_variables
from tests.deploy.grafana import DEPLOY

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
ENVIRONMENT = dict(re.findall(rf"\b({PREFIX}\w+)=(\S+)", DOCKERFILE[DOCKERFILE.rindex("\nENV ") :]))
PORTS = [int(port) for port in re.findall(r"\d+", re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)[0])]
[UID] = map(int, re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE))
[VOLUME] = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
[PROGRAM] = re.findall(r'^ENTRYPOINT \["(\S+)"\]$', DOCKERFILE, re.MULTILINE)


def settings(environment: Mapping[str, str], base: Mapping[str, str] = ENVIRONMENT) -> Settings:
    """The settings of a server with this environment; a name that is no setting's fails. Raises ValidationError."""
    ours = {**base, **{name: value for name, value in environment.items() if name.startswith(PREFIX)}}
    assert unknown_variables(ours) == []
    return alone({name.removeprefix(PREFIX).lower(): value for name, value in ours.items()})
