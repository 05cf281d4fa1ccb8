"""Reads the settings in force, and says which are wrong: one line for all of them.

It repeats what was given, so that it can be found, but never an address of a database.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ingestor.errors import BadSetting
from ingestor.settings.settings import ENV_FILE, PREFIX, Settings

# What `ingestor top` and `tail` send, and no setting of a server.
_CLIENTS_KEY = f"{PREFIX}KEY"


class _GivenAlone(Settings):
    """Settings that neither the environment nor `.env` can change."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def alone(values: Mapping[str, Any]) -> Settings:
    """The settings that `values` say, over the defaults and nothing else."""
    return _GivenAlone(**values)


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force: `flags` over the environment over `.env` over the defaults.

    Raises BadSetting with one line that names each wrong one.
    """
    try:
        return Settings(**(flags or {}))
    except ValidationError as error:
        raise BadSetting("; ".join(_explain(dict(item)) for item in error.errors())) from None
    except OSError as error:
        msg = f"{ENV_FILE} can't be read: {(error.strerror or str(error)).lower()}"
        raise BadSetting(msg) from None
    except UnicodeError:
        msg = f"{ENV_FILE} can't be read: it is no UTF-8 text"
        raise BadSetting(msg) from None


def misspelt() -> list[str]:
    """What the environment and `.env` (which `load` could read) set with our prefix and no setting's name."""
    return unknown_variables({**dotenv_values(ENV_FILE, interpolate=False), **os.environ})


def unknown_variables(environment: Mapping[str, object]) -> list[str]:
    """Variables that carry our prefix and name no setting: most likely misspelt."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {_CLIENTS_KEY}
    ours = (name for name in environment if name.upper().startswith(PREFIX))
    return sorted(
        name for name in ours if name.upper() not in known and not name.startswith(PREFIX + "TEST_")
    )


def _explain(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    given = "" if name == "database_url" else f" (it is {error['input']!r})"
    flag = name.replace("_", "-")
    return f"{PREFIX}{name.upper()} (or --{flag}): {message[0].lower()}{message[1:]}{given}"
