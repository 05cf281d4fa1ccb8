"""Everything that can be set, from the environment (INGESTOR_*), `.env` and flags of the same names.

A setting that can't be right is refused here, before anything is started; nothing is read elsewhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ingestor.errors import BadSetting

PREFIX = "INGESTOR_"
# What `ingestor top` and `tail` send, and no setting of a server.
_CLIENTS_KEY = f"{PREFIX}KEY"
EMBEDDED = "embedded"
ENV_FILE = ".env"
METRIC_BYTES_MAX = 64 * 1024
TIME_RANGE_DAYS_MAX = 36_500

_ADDRESS_FORM = (
    f"must read postgresql://USER:PASSWORD@HOST:PORT/DATABASE (or `{EMBEDDED}`), with / # ? @ : in a password"
    " written as %2F %23 %3F %40 %3A"
)
_HOST_AND_PORT = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]+))?")
_PORT_MAX = 65_535
# As browsers send it: lower case, and never with a path.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
# Segments are released whole, and each holds several requests.
_JOURNAL_MESSAGES_MIN = 16
# A connection may have half of what is on its way, and one message has to fit twice.
_RECEIVED_MESSAGES_MIN = 4
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """`250ms`, `1s`, `5m`, `2h`, `365d`, sums such as `1h30m`, and a bare 0. Raises ValueError."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text == "0":
        return timedelta(0)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        msg = f"{value!r} is not a duration: write it like 250ms, 1s, 5m, 2h or 365d"
        raise ValueError(msg)
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if seconds > timedelta.max.total_seconds() / 1000:
        msg = f"{value!r} is too long"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
ROOT_DATA_DIR = Path("/var/lib/ingestor")


def default_data_dir() -> Path:
    """/var/lib/ingestor for root, the user data directory else."""
    return ROOT_DATA_DIR if os.geteuid() == 0 else user_data_path("ingestor")


class Settings(BaseSettings):
    """The server's settings; a field's name in capitals, with INGESTOR_ before it, is its variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or `embedded` for the PostgreSQL that"
        " comes along, in DATA_DIR. Unset means embedded while HOST is loopback",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="where the journal and the embedded database live (default: the user data directory; for root"
        f" {ROOT_DATA_DIR})",
    )
    host: str = Field(default="127.0.0.1", description="the address to listen on, for both protocols")
    grpc_port: int = Field(default=50051, ge=0, le=65535, description="the gRPC port; 0 takes a free one")
    http_port: int = Field(default=8080, ge=0, le=65535, description="the HTTP port; 0 takes a free one")
    tls_cert: Path | None = Field(
        default=None,
        description="the server's certificate in PEM, with those between it and its CA behind it; both ports speak"
        " TLS (1.2 or newer) then. Changed files are taken within seconds",
    )
    tls_key: Path | None = Field(
        default=None, description="the private key of TLS_CERT in PEM, not encrypted"
    )
    tls_client_ca: Path | None = Field(
        default=None, description="the CAs, in PEM, whose certificates clients must show (mutual TLS)"
    )
    tls_client_auth: Literal["required", "optional"] = Field(
        default="required",
        description="whether with TLS_CLIENT_CA clients without a certificate are refused, or taken as strangers",
    )
    cors_origins: str = Field(
        default="",
        description="sites whose pages may call the HTTP side from a browser, as https://example.org, with commas"
        " between them; * for all, empty for none",
    )
    insecure: bool = Field(
        default=False,
        description="listen beyond loopback, although anyone who reaches the ports may then write, or read along",
    )
    keys_file: Path | None = Field(
        default=None,
        description="the file of keys, which `ingestor keys` writes (default: keys in DATA_DIR; without any"
        " there, callers need none)",
    )
    series_per_hour_max: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="distinct series that may be written within an hour with each key, or by all where no keys are"
        " needed; metrics of new ones beyond are rejected. 0 is no bound",
    )
    series_per_hour_dry_run: bool = Field(
        default=False,
        description="reject nothing beyond SERIES_PER_HOUR_MAX, only log and count whose metrics it would be",
    )
    batch_size: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="waiting metrics that start a flush at once; while storing lags, a batch takes up to 10 times",
    )
    flush_interval: Duration = Field(
        default=timedelta(milliseconds=100),
        description="the longest that a metric waits for its batch to fill",
    )
    queue_capacity: int = Field(
        default=500_000,
        ge=1,
        description="metrics waiting or being stored; beyond it requests wait, then fail",
    )
    queue_bytes: ByteSize = Field(
        default=ByteSize(128 * 1024**2), description="the same bound in bytes of memory"
    )
    admission_wait: Duration = Field(
        default=timedelta(seconds=1),
        description="how long a request waits for room in the queue; 0 refuses at once",
    )
    journal: Literal["disk", "memory"] = Field(
        default="disk",
        description="where acknowledged metrics wait for the database: on disk in DATA_DIR, which outlives"
        " crashes, or in memory",
    )
    journal_bytes_max: ByteSize = Field(
        default=ByteSize(4 * 1024**3),
        description="what the disk journal may take; beyond it requests wait, then fail",
    )
    journal_retention: Duration = Field(
        default=timedelta(hours=1),
        description="how long the disk journal keeps what is committed, where there is room: a database that is"
        " restored to an earlier moment gets it again",
    )
    ack: Literal["queued", "journaled", "committed"] | None = Field(
        default=None,
        description="what requests that don't say so wait for (default: journaled with a disk journal, else"
        " queued)",
    )
    commit_wait_max: Duration = Field(
        default=timedelta(seconds=30),
        description="how long a request without a deadline waits for its commit",
    )
    request_id_window: Duration = Field(
        default=timedelta(hours=24), description="how long a request_id is remembered"
    )
    message_bytes_max: ByteSize = Field(
        default=ByteSize(4 * 1024**2), description="the largest request body, also inflated"
    )
    time_past_max: Duration = Field(
        default=timedelta(days=365), description="how far back a metric's time may lie"
    )
    time_future_max: Duration = Field(
        default=timedelta(hours=1), description="how far ahead a metric's time may lie"
    )
    column_store: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="write large batches directly into TimescaleDB's column store: auto from 2.29 on, on from 2.21",
    )
    codecs: Literal["native", "reference"] = Field(
        default="native",
        description="what decodes bulk requests and encodes COPY: native libraries where they exist, or plain code",
    )
    grpc_lane: bool = Field(
        default=True,
        description="answer unary gRPC calls in the server's own fast lane; false: in grpclib's way",
    )
    query_connections: int = Field(
        default=4,
        ge=1,
        le=100,
        description="connections to the database for queries, beside those that store",
    )
    query_timeout: Duration = Field(
        default=timedelta(seconds=10), description="how long a query may take at most"
    )
    connections_max: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="open connections of each port; one more takes the place of one that is idle, or is closed."
        " Fewer where the limit of open files (ulimit -n) leaves no room",
    )
    connection_idle: Duration = Field(
        default=timedelta(minutes=15),
        description="how long a connection may be without a call: longer than load balancers keep theirs; 0 for any"
        " time",
    )
    connection_age_max: Duration = Field(
        default=timedelta(0),
        description="how old a connection may become, give or take a tenth, before its client is told to make"
        " another: 30m spreads gRPC clients over new gateways behind a balancer of connections; 0 for any age",
    )
    header_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="how long a client may take to begin, and to send the headers of a request",
    )
    request_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="how long the rest of a request, or a message of a stream that has begun, may take to come",
    )
    send_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="how long a client may leave unread what it is sent: 64KiB in that time are enough",
    )
    receive_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024**2),
        description="what all requests together may take that have not come whole, half of it on one connection;"
        " beyond it those that came slowest are refused",
    )
    send_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024**2),
        description="what all clients together may leave unread; beyond it those who stopped first are cut off",
    )
    drain_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="how long stopping may take: calls in flight, then the queue",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="how log lines are written")
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="the least important level that is logged"
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _database_address(cls, value: SecretStr) -> SecretStr:
        address = value.get_secret_value()
        if address not in ("", EMBEDDED) and not _is_address(address):
            raise ValueError(_ADDRESS_FORM)
        return value

    @field_validator("host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if not host:
            msg = "must be an address or a name"
            raise ValueError(msg)
        return host

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        origins = [each for part in value.split(",") if (each := part.strip())]
        for origin in origins:
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                msg = f"{origin!r} is no origin: write it like https://example.org or http://localhost:3000, or *"
                raise ValueError(msg)
        return ",".join(origins)

    @field_validator("data_dir", "keys_file", "tls_cert", "tls_key", "tls_client_ca", mode="before")
    @classmethod
    def _path(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip():
            msg = "must name a directory" if info.field_name == "data_dir" else "must name a file"
            raise ValueError(msg)
        try:
            return Path(value).expanduser()
        except RuntimeError:
            msg = "names the home directory of a user that does not exist"
            raise ValueError(msg) from None

    @field_validator("queue_bytes", "message_bytes_max")
    @classmethod
    def _room_for_one(cls, value: ByteSize) -> ByteSize:
        if value < METRIC_BYTES_MAX:
            msg = f"must be at least {METRIC_BYTES_MAX // 1024}KiB, the size of the largest metric"
            raise ValueError(msg)
        return value

    @field_validator("flush_interval")
    @classmethod
    def _not_idle(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=1) <= value <= timedelta(hours=1):
            msg = "must lie between 1ms and 1h"
            raise ValueError(msg)
        return value

    @field_validator("time_past_max", "time_future_max")
    @classmethod
    def _within_calendar(cls, value: timedelta) -> timedelta:
        if value > timedelta(days=TIME_RANGE_DAYS_MAX):
            msg = f"must be {TIME_RANGE_DAYS_MAX}d at most"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _tls_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, lacking = ("TLS_KEY", "TLS_CERT") if self.tls_cert is None else ("TLS_CERT", "TLS_KEY")
            msg = f"{given} needs {lacking} beside it: a certificate and its private key, each in PEM"
            raise ValueError(msg)
        if self.tls_client_ca is not None and self.tls_cert is None:
            msg = "TLS_CLIENT_CA needs TLS_CERT and TLS_KEY: without TLS no client can show a certificate"
            raise ValueError(msg)
        if self.tls_client_auth == "optional" and self.tls_client_ca is None:
            msg = "TLS_CLIENT_AUTH=optional needs TLS_CLIENT_CA, which says whose certificates count"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _safe_to_listen(self) -> Self:
        if not self.listens_on_loopback:
            if not self.insecure and (lacking := self._lacking_beyond_loopback()):
                msg = (
                    f"HOST={self.host} listens beyond loopback, {lacking}, or put INSECURE=true beside it if the"
                    " network is private"
                )
                raise ValueError(msg)
            if not self.database_url.get_secret_value():
                msg = (
                    f"HOST={self.host} listens beyond loopback, so DATABASE_URL must be said"
                    " (an address, or `embedded`)"
                )
                raise ValueError(msg)
        return self

    @field_validator("query_timeout")
    @classmethod
    def _bearable(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=10) <= value <= timedelta(hours=1):
            msg = "must lie between 10ms and 1h"
            raise ValueError(msg)
        return value

    @field_validator("header_timeout", "request_timeout", "send_timeout")
    @classmethod
    def _patience(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=100) <= value <= timedelta(hours=1):
            msg = "must lie between 100ms and 1h"
            raise ValueError(msg)
        return value

    @field_validator("connection_idle", "connection_age_max")
    @classmethod
    def _some_time_or_none(cls, value: timedelta) -> timedelta:
        if value and not timedelta(seconds=1) <= value <= timedelta(days=TIME_RANGE_DAYS_MAX):
            msg = f"must lie between 1s and {TIME_RANGE_DAYS_MAX}d, or be 0"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _room_to_receive(self) -> Self:
        least = ByteSize(_RECEIVED_MESSAGES_MIN * self.message_bytes_max)
        if self.receive_bytes < least:
            msg = (
                f"RECEIVE_BYTES must be at least {_RECEIVED_MESSAGES_MIN} times MESSAGE_BYTES_MAX, which is"
                f" {least.human_readable()}"
            )
            raise ValueError(msg)
        return self

    @field_validator("request_id_window", "commit_wait_max")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=1) <= value <= timedelta(days=TIME_RANGE_DAYS_MAX):
            msg = f"must lie between 1ms and {TIME_RANGE_DAYS_MAX}d"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _journal_holds_requests(self) -> Self:
        least = ByteSize(_JOURNAL_MESSAGES_MIN * self.message_bytes_max)
        if self.journal == "disk" and self.journal_bytes_max < least:
            msg = (
                f"JOURNAL_BYTES_MAX must be at least {_JOURNAL_MESSAGES_MIN} times MESSAGE_BYTES_MAX, which is"
                f" {least.human_readable()}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ack_on_offer(self) -> Self:
        if self.ack == "journaled" and self.journal == "memory":
            msg = "ACK=journaled needs JOURNAL=disk: a journal in memory offers queued and committed"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.grpc_port and self.grpc_port == self.http_port:
            msg = f"GRPC_PORT and HTTP_PORT are both {self.grpc_port}: each protocol needs a port of its own"
            raise ValueError(msg)
        return self

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """CORS_ORIGINS, one by one."""
        return tuple(self.cors_origins.split(",")) if self.cors_origins else ()

    @property
    def keys_path(self) -> Path:
        """Where the keys are."""
        return self.data_dir / "keys" if self.keys_file is None else self.keys_file

    @property
    def knows_its_callers(self) -> bool:
        """Whether nobody is served who has not proved who they are."""
        return self.tls_client_ca is not None and self.tls_client_auth == "required"

    def _lacking_beyond_loopback(self) -> str:
        """What would have to be set before strangers can reach the ports; empty when all is. Whether there are keys
        is looked at when the server starts."""
        return "" if self.tls_cert is not None else "in the clear: set TLS_CERT and TLS_KEY"

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def embedded(self) -> bool:
        """Whether the database is the one that comes along."""
        return self.database_url.get_secret_value() in ("", EMBEDDED)


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


def _explain(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    given = "" if name == "database_url" else f" (it is {error['input']!r})"
    flag = name.replace("_", "-")
    return f"{PREFIX}{name.upper()} (or --{flag}): {message[0].lower()}{message[1:]}{given}"
