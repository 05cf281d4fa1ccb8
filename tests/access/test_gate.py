"""Who is let in, and by what; without a socket or a file."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from ingestor.access import Gate, Keys
from ingestor.access.needs import Need, lacking
from ingestor.access.scopes import Scopes, scopes
from ingestor.access.secret_text import digest, id_of, new_id, new_text
from ingestor.caller import ANYBODY, CALLER
from ingestor.errors import Forbidden, Unauthenticated
from ingestor.permits import permit_reading, permit_writing, permit_writing_column
from tests.access.kit import NEEDS, NOW, Clock, bearer, gate, make


def test_a_secret_is_256_random_bits_under_its_id() -> None:
    """The form is `ing_<id>_<43>`; no two are alike, and what is not of that form names no key."""
    texts = {new_text("abcdefgh") for _ in range(200)}
    assert len(texts) == 200
    assert all(id_of(text) == "abcdefgh" and len(text) == 4 + 8 + 1 + 43 for text in texts)
    [text] = {new_text("abcdefgh")}
    for bad in (
        "",
        text[:-1],
        text + "0",
        text + "\n",
        text.upper(),
        " " + text,
        text.replace("ing_", "ong_"),
    ):
        assert id_of(bad) is None
    # All 62 characters come at each place: 256 bits need 43 of them.
    assert all(len({text[-1 - place] for text in texts}) > 20 for place in range(42))


def test_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hmac.compare_digest and by nothing else, whether the id is known or not."""
    key, text = make()
    keys, compared = Keys([key]), list[tuple[Any, Any]]()

    def compare(left: Any, right: Any) -> bool:
        compared.append((left, right))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    stranger = new_text(new_id())
    for sent in (text, stranger, "nothing of ours"):
        assert keys.of_secret(sent) is None
    assert [left for left, _ in compared] == [digest(text), digest(stranger), digest("nothing of ours")]
    assert compared[0][1] == key.sha256


@pytest.mark.parametrize(
    "metadata",
    [
        lambda text: {"authorization": [f"Bearer {text}"]},
        lambda text: {"authorization": [f"bearer  {text} "]},
        lambda text: {"x-api-key": [text]},
        lambda text: {"x-api-key": [text], "authorization": [f"Bearer {text}"]},
    ],
)
def test_a_key_may_be_sent_in_two_ways(metadata: Any) -> None:
    """As a bearer token, or as x-api-key; twice the same is one."""
    key, text = make()
    assert gate(key).recognise("/write", metadata(text), ()).enter().id == key.id


def test_what_is_no_key_is_refused() -> None:
    """None, one that nobody made, another's id with this secret, two at once: never told which."""
    (one, one_text), (other, other_text) = make(), make()
    door = gate(one, other)
    mixed = one_text.replace(one.id, other.id)
    bad: list[dict[str, list[str | bytes]]] = [
        {},
        bearer(""),
        bearer(new_text(new_id())),
        bearer(mixed),
        bearer(one_text[:-1] + ("0" if one_text[-1] != "0" else "1")),
        bearer(one.sha256),
        {"authorization": [f"Basic {one_text}"]},
        {"authorization": [f"Bearer {one_text}", f"Bearer {other_text}"]},
        {"authorization": [f"Bearer {one_text}"], "x-api-key": [other_text]},
        {"x-api-key": [one_text.encode() + b"\0"]},
    ]
    for metadata in bad:
        with pytest.raises(Unauthenticated) as caught:
            door.recognise("/any", metadata, ()).enter()
        assert one_text not in caught.value.message
    assert door.recognise("/open", {}, ()).enter().id == ""


def test_a_key_expires_and_is_revoked() -> None:
    """To the second, also for calls whose headers were seen before, and for streams under way."""
    clock = Clock()
    key, text = make(expires=NOW + timedelta(seconds=10))
    door = gate(key, clock=clock)
    admission = door.recognise("/any", bearer(text), ())
    caller = admission.enter()
    clock.s += 9.99
    admission.enter()
    caller.check()
    clock.s += 0.01
    for ended in (admission.enter, caller.check, caller.enter):
        with pytest.raises(Unauthenticated, match="expired"):
            ended()
    lasting, lasting_text = make()
    door.use(Keys([lasting]))
    admission = door.recognise("/any", bearer(lasting_text), ())
    caller = admission.enter()
    door.use(Keys([lasting.model_copy(update={"revoked": NOW})]))
    with pytest.raises(Unauthenticated, match="revoked"):
        admission.enter()
    with pytest.raises(Unauthenticated, match="taken away"):
        caller.check()


def test_new_keys_count_at_once_and_old_ones_stay_valid() -> None:
    """Rotation: two at a time, one caller; what was refused is let in once its key is there."""
    old, old_text = make()
    new, new_text_ = make(caller=old.id)
    door = gate(old)
    early = door.recognise("/any", bearer(new_text_), ())
    with pytest.raises(Unauthenticated):
        early.enter()
    under_way = door.recognise("/any", bearer(old_text), ()).enter()
    door.use(Keys([old, new]))
    assert early.enter().id == old.id
    under_way.check()
    door.use(Keys([new]))
    with pytest.raises(Unauthenticated):
        under_way.check()
    assert early.enter().id == old.id


def test_a_key_that_is_changed_allows_what_it_says_now() -> None:
    """Also for calls whose headers were seen before; a stream under way has to begin again."""
    key, text = make("write:a.", "write:b.")
    door = gate(key)
    admission = door.recognise("/write", bearer(text), ())
    before = admission.enter()
    door.use(Keys([key.model_copy(update={"scopes": ("write:a.",)})]))
    assert [admission.enter().may_write(name) for name in ("a.x", "b.x")] == [True, False]
    with pytest.raises(Unauthenticated, match="call again"):
        before.check()
    door.use(Keys([key.model_copy(update={"scopes": ("read",)})]))
    with pytest.raises(Forbidden):
        admission.enter()


def test_without_keys_nobody_needs_one_until_there_are_some() -> None:
    """A stream that began without is ended then."""
    clock = Clock()
    door = Gate(NEEDS, wall=clock, clock=clock)
    admission = door.recognise("/unknown", {}, ())
    caller = admission.enter()
    assert caller.may_write("anything")
    caller.check()
    door.use(Keys([make()[0]]))
    for ended in (caller.check, admission.enter):
        with pytest.raises(Unauthenticated):
            ended()


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("write",), {"/any", "/write"}),
        (("write:b.",), {"/any", "/write"}),
        (("read",), {"/any", "/read", "/all"}),
        (("read:b.", "read:c."), {"/any", "/read"}),
        (("admin",), {"/any", "/write", "/read", "/all", "/unknown"}),
    ],
)
def test_each_scope_opens_its_own_and_no_more(words: tuple[str, ...], allowed: set[str]) -> None:
    """What is not named needs admin; what is open needs nothing."""
    key, text = make(*words)
    door = gate(key)
    door.recognise("/open", bearer(text), ()).enter()
    for path in ("/any", "/write", "/read", "/all", "/unknown"):
        admission = door.recognise(path, bearer(text), ())
        if path in allowed:
            admission.enter()
        else:
            with pytest.raises(Forbidden, match="scope"):
                admission.enter()


def test_prefixes_are_compared_as_they_are() -> None:
    """Neither case nor what looks alike nor an escape is taken for the prefix."""
    key, text = make("write:billing.", "read:a", "read:b.")
    caller = gate(key).recognise("/write", bearer(text), ()).enter()
    assert caller.may_write("billing.")
    assert caller.may_write("billing.eu")
    alike = ("Billing.x", "b\u0456lling.x", "\uff42illing.x", "billing\u2024x")
    for name in ("", "billing", "billing2.", "x.billing.", *alike):
        assert not caller.may_write(name)
    assert [name for name in ("a", "ab", "b.x", "b", "billing.") if caller.may_read(name)] == [
        "a",
        "ab",
        "b.x",
    ]
    assert not caller.writes_all
    assert not caller.may_read("")


def test_scopes_are_words() -> None:
    """Prefixes that others begin are needless; what is no scope is named."""
    assert scopes(["write:a", "write:ab", "write:b"]) == Scopes(("a", "b"), (), admin=False)
    assert scopes(["write:a", "write"]).write_prefixes == ("",)
    assert scopes(["admin"]) == Scopes(("",), ("",), admin=True)
    for bad in (
        "",
        "Write",
        "write:",
        "write: a",
        "write:a,b",
        "admin:x",
        "all",
        f"read:{'x' * 256}",
        "write:\0",
        "write:billing.\u202egnp",
        "read:a\u200bb",
        "read:a\u2028b",
        "read:\udcff",
    ):
        with pytest.raises(ValueError, match="scope"):
            scopes([bad])
    assert lacking(Need.ADMIN, scopes(["write", "read"])) == "admin"


def test_a_certificate_stands_for_its_key() -> None:
    """By each of its names; a key that is sent counts for more, also when it is a bad one."""
    key, _ = make("write:a.", certificate_names=("spiffe://x/a", "a.example"))
    other, text = make("read")
    door = gate(key, other)
    assert door.recognise("/write", {}, ("b.example", "a.example")).enter().id == key.id
    assert door.recognise("/read", bearer(text), ("a.example",)).enter().id == other.id
    for metadata, names in (({}, ()), ({}, ("A.example",)), (bearer("x"), ("a.example",))):
        with pytest.raises(Unauthenticated):
            door.recognise("/write", metadata, names).enter()
    door.use(Keys([key.model_copy(update={"revoked": NOW}), other]))
    with pytest.raises(Unauthenticated):
        door.recognise("/write", {}, ("a.example",)).enter()


def test_of_keys_with_one_certificate_the_newest_valid_one_counts() -> None:
    """One that has expired hides no older one, also on a connection that began before; of none that is valid, the
    newest says why."""
    clock = Clock()
    name = ("a.example",)
    old, _ = make("write:old.", certificate_names=name, expires=NOW + timedelta(seconds=20))
    new, _ = make("write:new.", certificate_names=name, expires=NOW + timedelta(seconds=10))
    admission = gate(old, new, clock=clock).recognise("/write", {}, name)
    assert admission.enter().write_prefixes == ("new.",)
    clock.s += 10
    assert admission.enter().write_prefixes == ("old.",)
    late = gate(old, new, clock=clock).recognise("/write", {}, name)
    assert late.enter().write_prefixes == ("old.",)
    clock.s += 10
    for ended in (admission, late):
        with pytest.raises(Unauthenticated, match=f"{new.id} has expired"):
            ended.enter()


def told(permit: Callable[..., None]) -> str | None:
    """What is refused, if anything."""
    try:
        permit()
    except Forbidden as refusal:
        return refusal.message
    return None


def test_columns_are_permitted_as_rows_are() -> None:
    """The first foreign name in their order, whatever stands around it; slices count as what they are."""
    names = ["billing.a", "b", "billing.ü", "x.billing.", "billing.", "Billing.a"]
    column = pa.StructArray.from_arrays([pa.array(names * 2)], ["service_name"])
    key, text = make("write:billing.", "write:x.")
    for caller in (ANYBODY, gate(key).recognise("/write", bearer(text), ()).enter()):
        token = CALLER.set(caller)
        for start in range(len(names)):
            for stop in range(start + 1, len(names) * 2):
                by_row = told(lambda a=start, b=stop: permit_writing(lambda: (names * 2)[a:b]))
                by_column = told(lambda a=start, b=stop: permit_writing_column(column[a:b]))
                assert by_row == by_column
                assert (by_row is None) is (
                    caller is ANYBODY or not {"b", "Billing.a"} & set((names * 2)[start:stop])
                )
        CALLER.reset(token)


def test_reading_is_permitted_by_prefix() -> None:
    """A name, or a prefix of names, that begins as one of the key's does."""
    key, text = make("read:billing.")
    token = CALLER.set(gate(key).recognise("/read", bearer(text), ()).enter())
    permit_reading("billing.")
    permit_reading("billing.api")
    for name in ("", "b", "billing", "payments"):
        with pytest.raises(Forbidden, match=r"only of billing\.\*"):
            permit_reading(name)
    CALLER.reset(token)
