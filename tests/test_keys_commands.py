"""`ingestor keys`, as an operator runs it."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import aiohttp
import pytest

from ingestor.access import Keys
from ingestor.access.secret_text import digest, id_of
from ingestor.cli import main
from ingestor.errors import BadSetting
from ingestor.settings import load
from ingestor.trust import check_keys
from tests.access.kit import make
from tests.server_process import ServerProcess, serve

GOOD = b'{"serviceName":"billing.api","metricName":"m","value":1}'


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def keys(*arguments: str) -> int:
    return main(["keys", *arguments])


def test_a_secret_is_printed_once_and_alone(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, for scripts; what is listed is all but secret and hash."""
    assert (
        keys("create", "billing", "--scope", "write:billing.", "--scope=read:billing.", "--expires-in=90d")
        == 0
    )
    out, err = capsys.readouterr()
    text = out.removesuffix("\n")
    id_ = id_of(text)
    assert id_ is not None
    assert "from now on every call needs a key" in err
    assert text not in err
    content = (data_dir / "keys").read_text()
    assert digest(text) in content
    assert text[-43:] not in content
    assert stat.S_IMODE((data_dir / "keys").stat().st_mode) == 0o600
    assert keys("list") == 0
    listed = capsys.readouterr().out
    assert re.fullmatch(
        rf"{id_}  valid until \d{{4}}-\d\d-\d\d \d\d:\d\d  'billing'  write:billing\.  read:billing\.\n",
        listed,
    )
    assert keys("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["scopes"] == ["write:billing.", "read:billing."]
    assert digest(text) not in listed


def test_a_key_may_take_anothers_place(capsys: pytest.CaptureFixture[str]) -> None:
    """With its name, scopes and bounds, for as long as is said; both are valid until one is revoked, and what is
    revoked stays listed."""
    assert (
        keys(
            "create", "a", "--scope=write", "--requests-per-s=5", "--metrics-per-s=1e3", "--series-per-hour=9"
        )
        == 0
    )
    old = id_of(capsys.readouterr().out.strip())
    assert old is not None
    assert keys("create", "b", "--replacing", old, "--certificate-name", "a.example") == 0
    new = id_of(capsys.readouterr().out.strip())
    assert keys("revoke", old) == 0
    capsys.readouterr()
    keys("list")
    bounds = "write  5 requests/s  1000 metrics/s  9 series/h"
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{old}  revoked [\d :-]{{16}}  'a'  {bounds}", first)
    assert second == f"{new}  valid  'b'  {bounds}  certificate 'a.example'  replaces {old}"
    assert keys("revoke", str(new)) == 0
    assert "no valid key is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["create", "x"], "--scope write:billing."),
        (["create", "x", "--scope", "fly"], "'fly' is no scope"),
        (["create", "x", "--scope", "write:"], "empty prefix"),
        (["create", "", "--scope", "write"], "NAME: "),
        (["create", "a\nb", "--scope", "write"], "NAME: "),
        (["create", "x", "--scope", "write", "--expires-in", "3"], "--expires-in: '3' is not a duration"),
        (["create", "x", "--scope", "write", "--expires-in", "0"], "--expires-in: must lie"),
        (["create", "x", "--scope", "write", "--replacing", "abcdefgh"], "no key has the id abcdefgh"),
        (["create", "x", "--scope", "write", "--certificate-name", ""], "--certificate-name: "),
        (["revoke", "abcdefgh"], "no key has the id abcdefgh"),
    ],
)
def test_what_is_wrong_is_one_line(
    data_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    """It names the flag, ends with 2, and makes no key."""
    assert keys(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in err
    assert err.startswith("ingestor: ")
    assert len(err.splitlines()) == 1
    assert not (data_dir / "keys").exists()


def test_a_secret_in_place_of_an_id_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """It would be in a terminal's log."""
    text = make()[1]
    assert keys("revoke", text) == 2
    assert text not in capsys.readouterr().err


def test_flags_that_are_no_rates(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own exit code is the same 2."""
    for bad in ("0", "-1", "many", "nan", "inf"):
        with pytest.raises(SystemExit) as caught:
            keys("create", "x", "--scope", "write", f"--requests-per-s={bad}")
        assert caught.value.code == 2
        assert "must be a number" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_what_root_makes_the_servers_user_can_read(data_dir: Path) -> None:
    """The file belongs to whoever its directory, or the file before it, belongs to; one of another user is refused,
    who could make keys."""
    data_dir.mkdir()
    os.chown(data_dir, 65534, 65534)
    for _ in range(2):
        assert keys("create", "x", "--scope", "write") == 0
        assert (data_dir / "keys").stat().st_uid == 65534
    os.chown(data_dir / "keys", 65533, 65533)
    assert keys("create", "x", "--scope", "write") == 2
    os.chown(data_dir / "keys", 0, 0)
    assert keys("create", "x", "--scope", "write") == 0
    assert (data_dir / "keys").stat().st_uid == 0


def test_beyond_loopback_there_must_be_keys() -> None:
    """An empty file is none; INSECURE says that it is meant. Mutual TLS knows its callers too, unless strangers may
    come."""
    local = load({"database_url": "embedded"})
    beyond = local.model_copy(update={"host": "0.0.0.0"})
    check_keys(local, None)
    check_keys(beyond, Keys([make()[0]]))
    check_keys(beyond.model_copy(update={"insecure": True}), None)
    tls = {"tls_cert": "c.pem", "tls_key": "k.pem", "tls_client_ca": "a.pem"}
    served = {"host": "0.0.0.0", "database_url": "embedded", **tls}
    check_keys(load(served), None)
    with pytest.raises(BadSetting, match="ingestor keys create"):
        check_keys(load({**served, "tls_client_auth": "optional"}), None)
    named = local.model_copy(update={"keys_file": Path("/nowhere/keys")})
    with pytest.raises(BadSetting, match="KEYS_FILE /nowhere/keys has no keys"):
        check_keys(named, None)
    check_keys(named, Keys([make()[0]]))
    for none in (None, Keys()):
        with pytest.raises(BadSetting, match="ingestor keys create"):
            check_keys(beyond, none)


async def test_a_running_server_takes_note(
    open_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the first key, of one that is revoked, and without a word of secrets in its log."""
    monkeypatch.setenv("INGESTOR_DATA_DIR", str(open_path / "data"))
    async with serve(open_path, database_url=database_url, log_level="TRACE") as server:
        assert await post(server, {}) == 200
        assert keys("create", "x", "--scope", "write:billing.") == 0
        text = capsys.readouterr().out.strip()
        await server.until_logged("keys: 1 valid ones")
        assert await post(server, {}) == 401
        assert await post(server, {"Authorization": f"Bearer {text}"}) == 200
        assert keys("revoke", str(id_of(text))) == 0
        await server.until_logged("keys: 0 valid ones")
        assert await post(server, {"X-API-Key": text}) == 401
        assert text[-43:] not in json.dumps(server.log)


async def post(server: ServerProcess, headers: dict[str, str]) -> int:
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{server.http_url}/v1/metrics", data=GOOD) as answer,
    ):
        return answer.status
