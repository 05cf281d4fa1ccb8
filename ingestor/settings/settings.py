"""All settings as one flat list, and what has to fit together between them.

Nothing is taken that would be refused later, when the server is half started; of several misfits the first is told.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import ByteSize, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestor.settings.addresses import EMBEDDED
from ingestor.settings.pipeline import Pipeline
from ingestor.settings.serving import Serving
from ingestor.settings.surroundings import Surroundings

PREFIX = "INGESTOR_"
ENV_FILE = ".env"

# Segments are released whole, and each holds several requests.
_JOURNAL_MESSAGES_MIN = 16
# A connection may have half of what is on its way, and one message has to fit twice.
_RECEIVED_MESSAGES_MIN = 4


# pydantic lists the fields of the last base first.
class Settings(Serving, Pipeline, Surroundings, BaseSettings):
    """The server's settings; a field's name in capitals, with INGESTOR_ before it, is its variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

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

    @model_validator(mode="after")
    def _room_to_receive(self) -> Self:
        self._holds_messages("RECEIVE_BYTES", self.receive_bytes, _RECEIVED_MESSAGES_MIN)
        return self

    @model_validator(mode="after")
    def _journal_holds_requests(self) -> Self:
        if self.journal == "disk":
            self._holds_messages("JOURNAL_BYTES_MAX", self.journal_bytes_max, _JOURNAL_MESSAGES_MIN)
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

    def _holds_messages(self, name: str, size: ByteSize, count: int) -> None:
        least = ByteSize(count * self.message_bytes_max)
        if size < least:
            msg = (
                f"{name} must be at least {count} times MESSAGE_BYTES_MAX, which is {least.human_readable()}"
            )
            raise ValueError(msg)

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
