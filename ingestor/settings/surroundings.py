"""Where the server finds what it needs, where it listens, and who may come.

What is open to whom is not decided here: only what may be said of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import BaseModel, Field, SecretStr

from ingestor.settings.addresses import DatabaseAddress
from ingestor.settings.forms import DirectoryPath, FilePath, Host, Origins

_ROOT_DATA_DIR = Path("/var/lib/ingestor")


def _default_data_dir() -> Path:
    return _ROOT_DATA_DIR if os.geteuid() == 0 else user_data_path("ingestor")


class Surroundings(BaseModel):
    """Database, files, addresses, TLS, keys."""

    database_url: DatabaseAddress = Field(
        default=SecretStr(""),
        description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or `embedded` for the PostgreSQL that"
        " comes along, in DATA_DIR. Unset means embedded while HOST is loopback",
    )
    data_dir: DirectoryPath = Field(
        default_factory=_default_data_dir,
        description="where the journal and the embedded database live (default: the user data directory; for root"
        f" {_ROOT_DATA_DIR})",
    )
    host: Host = Field(default="127.0.0.1", description="the address to listen on, for both protocols")
    grpc_port: int = Field(default=50051, ge=0, le=65535, description="the gRPC port; 0 takes a free one")
    http_port: int = Field(default=8080, ge=0, le=65535, description="the HTTP port; 0 takes a free one")
    tls_cert: FilePath = Field(
        default=None,
        description="the server's certificate in PEM, with those between it and its CA behind it; both ports speak"
        " TLS (1.2 or newer) then. Changed files are taken within seconds",
    )
    tls_key: FilePath = Field(default=None, description="the private key of TLS_CERT in PEM, not encrypted")
    tls_client_ca: FilePath = Field(
        default=None, description="the CAs, in PEM, whose certificates clients must show (mutual TLS)"
    )
    tls_client_auth: Literal["required", "optional"] = Field(
        default="required",
        description="whether with TLS_CLIENT_CA clients without a certificate are refused, or taken as strangers",
    )
    cors_origins: Origins = Field(
        default="",
        description="sites whose pages may call the HTTP side from a browser, as https://example.org, with commas"
        " between them; * for all, empty for none",
    )
    insecure: bool = Field(
        default=False,
        description="listen beyond loopback, although anyone who reaches the ports may then write, or read along",
    )
    keys_file: FilePath = Field(
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
