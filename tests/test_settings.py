"""Settings: forms, bounds and what they refuse."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ingestor.errors import BadSetting
from ingestor.settings import Settings, alone, load, parse_duration, unknown_variables
from ingestor.storage.explaining import redacted


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"INGESTOR_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1s", 1),
        ("1.5s", 1.5),
        ("5m", 300),
        ("2h", 7200),
        ("365d", 31_536_000),
        ("1h30m", 5400),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number with a unit, or a sum of such."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "-1s", "1w", "1s!", "1e3s", "9" * 30 + "d"])
def test_what_is_no_duration(text: str) -> None:
    """A bare number is refused: nobody should have to guess its unit."""
    with pytest.raises(ValueError, match="duration|too long"):
        parse_duration(text)


def test_flags_win_over_the_environment_and_it_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The nearer source wins, setting by setting."""
    (tmp_path / ".env").write_text(
        "INGESTOR_BATCH_SIZE=1\nINGESTOR_QUEUE_CAPACITY=10\nINGESTOR_GRPC_PORT=1000\n"
    )
    monkeypatch.setenv("INGESTOR_BATCH_SIZE", "2")
    monkeypatch.setenv("INGESTOR_QUEUE_CAPACITY", "20")
    settings = load({"batch_size": "3"})
    assert (settings.batch_size, settings.queue_capacity, settings.grpc_port) == (3, 20, 1000)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("batch_size", "0", "greater than or equal to 1"),
        ("batch_size", "many", "valid integer"),
        ("flush_interval", "1", "250ms"),
        ("flush_interval", "0", "between 1ms and 1h"),
        ("grpc_port", "65536", "65535"),
        ("message_bytes_max", "10", "64KiB"),
        ("queue_bytes", "lots", "byte"),
        ("journal", "tape", "memory"),
        ("log_level", "LOUD", "DEBUG"),
        ("time_past_max", "40000d", "36500d"),
        ("host", " ", "address"),
        ("cors_origins", "example.org", "https://example.org"),
        ("cors_origins", "https://example.org/", "is no origin"),
        ("cors_origins", "*, https://Example.org", "is no origin"),
        ("data_dir", "", "directory"),
        ("data_dir", "~nobody-of-that-name/x", "home directory"),
        ("database_url", "mysql://u:secret@h/d", "postgresql://"),
        ("database_url", "postgresql:secret", "postgresql://"),
        ("database_url", "postgresql:/u:secret@h/d", "postgresql://"),
        ("database_url", "postgresql://u:secret/more@h:1/d", "%2F"),
        ("database_url", "postgresql://u:secret#more@h:1/d", "%23"),
        ("database_url", "postgresql://u:secret?more@h:1/d", "%3F"),
        ("database_url", "postgresql://u:secret@more@h:1/d", "%40"),
        ("database_url", "postgresql://u:[secret@h:1/d", "PORT"),
        ("database_url", "postgresql://u:secret@h:abc/d", "PORT"),
        ("database_url", "postgresql://u:secret@h:99999/d", "PORT"),
        ("database_url", "postgresql://u:secret@h:0/d", "PORT"),
        ("database_url", "postgresql://u:secret@h:1,i:x/d", "PORT"),
        ("database_url", "postgresql://u:secret@h,,i/d", "HOST"),
        ("database_url", "postgresql:///d?host=/run/x&port=secret", "PORT"),
        ("database_url", "postgresql://u:secret@h/d?secret", "postgresql://"),
    ],
)
def test_a_bad_setting_is_named_with_what_to_write(name: str, value: str, hint: str) -> None:
    """One line: the variable, the flag, what is expected, what was given (but never a database address)."""
    with pytest.raises(BadSetting) as caught:
        load({name: value})
    message = str(caught.value)
    assert message.startswith(f"INGESTOR_{name.upper()} (or --{name.replace('_', '-')}): ")
    assert hint in message
    assert "\n" not in message
    assert "secret" not in message


def test_origins_are_read_one_by_one() -> None:
    """With white space around them, or none at all."""
    assert load({}).allowed_origins == ()
    origins = load({"cors_origins": " https://a.example , http://[::1]:3000,"}).allowed_origins
    assert origins == ("https://a.example", "http://[::1]:3000")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])
def test_beyond_loopback_is_refused_unless_insecure_says_so(host: str) -> None:
    """Without it anybody on the network could write; with it, the database must be said."""
    with pytest.raises(BadSetting, match="INSECURE"):
        load({"host": host})
    with pytest.raises(BadSetting, match="DATABASE_URL"):
        load({"host": host, "insecure": True})
    assert load({"host": host, "insecure": True, "database_url": "embedded"}).embedded


TLS = {"tls_cert": "c.pem", "tls_key": "k.pem"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_cert": "c.pem"}, "TLS_CERT needs TLS_KEY"),
        ({"tls_key": "k.pem"}, "TLS_KEY needs TLS_CERT"),
        ({"tls_client_ca": "ca.pem"}, "TLS_CLIENT_CA needs TLS_CERT and TLS_KEY"),
        ({**TLS, "tls_client_auth": "optional"}, "TLS_CLIENT_AUTH=optional needs TLS_CLIENT_CA"),
        ({"host": "0.0.0.0"}, "in the clear"),
    ],
)
def test_tls_by_halves_is_refused(given: dict[str, str], told: str) -> None:
    """TLS is certificate and key; and beyond loopback it does not replace knowing who calls."""
    with pytest.raises(BadSetting, match=told):
        load({"database_url": "embedded", **given})


def test_mutual_tls_may_listen_beyond_loopback() -> None:
    """Nobody reads along, and nobody writes whom the CA does not know."""
    given = {"host": "0.0.0.0", **TLS, "tls_client_ca": "~/ca.pem", "database_url": "embedded"}
    settings = load(given)
    assert settings.knows_its_callers
    assert settings.tls_client_ca == Path("~/ca.pem").expanduser()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    """The defaults serve this machine on the embedded database."""
    settings = load({"host": host})
    assert settings.listens_on_loopback
    assert settings.embedded


def test_a_password_is_not_shown() -> None:
    """Settings may be logged."""
    assert "hunter2" not in repr(load({"database_url": "postgresql://u:hunter2@h/d"}))


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:p%40%2F@h:5432/d",
        "postgres://h/d?sslmode=disable&password=hunter2",
        "postgresql://u:p@h1:1,h2:65535,h3/d",
        "postgresql://u:p@[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql&port=5432&user=u",
        "postgresql://u@/d?host=h1,h2&port=1,2",
        "postgresql://%2Frun%2Fpostgresql/d",
    ],
)
def test_addresses_of_every_form_are_taken(address: str) -> None:
    """Lists of hosts, IPv6, sockets, parameters."""
    assert load({"database_url": address}).database_url.get_secret_value() == address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:hunter2@h:1/d?password=hunter2", "h:1/d"),
        ("postgresql://u:hunter2@h1:1,h2:2/d", "h1:1,h2:2/d"),
        ("postgresql://u:hunter2@[::1]:1/d", "[::1]:1/d"),
        ("postgresql:///d?host=/run/x&port=5432&password=hunter2", "/run/x:5432/d"),
        ("postgresql:///d", "the default socket/d"),
        ("postgresql:hunter2", "an address that can't be read"),
        ("postgresql://u:hun/ter2@h:1/d", "an address that can't be read"),
        ("postgresql://u:hun#ter2@h:1/d", "an address that can't be read"),
        ("postgresql://u:hun@ter2@h:1/d", "an address that can't be read"),
        ("postgresql://u:[hunter2@h:1/d", "an address that can't be read"),
    ],
)
def test_what_of_an_address_may_be_shown(address: str, shown: str) -> None:
    """Where the database is, and nothing that could be a password: not even of addresses that Settings refuses."""
    assert redacted(address) == shown


def test_one_port_cannot_serve_both_protocols() -> None:
    """Found before anything starts; 0 means two different free ones."""
    with pytest.raises(BadSetting, match="both 5000"):
        load({"grpc_port": 5000, "http_port": 5000})
    load({"grpc_port": 0, "http_port": 0})


def test_forms_that_people_write_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets and blanks around a host, a tilde in a path."""
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = load({"host": " [::1] ", "data_dir": "~/metrics"})
    assert settings.host == "::1"
    assert settings.listens_on_loopback
    assert settings.data_dir == Path("/home/somebody/metrics")


def test_an_env_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    """One line, and not the file's bytes."""
    (tmp_path / ".env").write_bytes("INGESTOR_HOST=f\xfc".encode("latin-1"))
    with pytest.raises(BadSetting, match=r"^\.env can't be read: it is no UTF-8 text$"):
        load()


def test_alone_heeds_neither_environment_nor_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is not given has its default."""
    (tmp_path / ".env").write_text("INGESTOR_QUEUE_CAPACITY=10\n")
    monkeypatch.setenv("INGESTOR_BATCH_SIZE", "2")
    settings = alone({"grpc_port": 0})
    assert (settings.grpc_port, settings.batch_size, settings.queue_capacity) == (0, 20_000, 500_000)


def test_misspelt_variables_are_found() -> None:
    """Ours by their prefix, but none of the settings; those of the tests and of clients are left alone."""
    environment = {
        "INGESTOR_BATCHSIZE": "1",
        "INGESTOR_HOST": "x",
        "INGESTOR_KEY": "what clients send",
        "INGESTOR_TEST_TIMESCALE_URL": "x",
        "PATH": "",
    }
    assert unknown_variables(environment) == ["INGESTOR_BATCHSIZE"]
