"""How much a caller may do in a second, by whatever key and connection; without a socket or a file."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ingestor.access import Keys
from ingestor.errors import TooFast
from tests.access.kit import NOW, Clock, bearer, gate, make


def test_rates_are_held_whatever_connection_a_key_comes_by() -> None:
    """Requests at the door, metrics where they are counted; keys of one caller share them; nothing is taken from a
    bucket by who is refused."""
    clock = Clock()
    old, old_text = make(requests_per_s=2.0, metrics_per_s=100.0)
    new, new_text_ = make(caller=old.id, requests_per_s=2.0, metrics_per_s=100.0)
    free, free_text = make()
    door = gate(old, new, free, clock=clock)
    first = door.recognise("/write", bearer(old_text), ())
    second = door.recognise("/any", bearer(new_text_), ())
    first.enter()
    caller = second.enter()
    for admission in (first, second, first):
        with pytest.raises(TooFast) as caught:
            admission.enter()
        assert caught.value.retry_after_s == pytest.approx(0.5)
    door.recognise("/write", bearer(free_text), ()).enter()
    clock.s += 0.5
    first.enter()
    caller.spend(60)
    with pytest.raises(TooFast) as caught:
        caller.spend(60)
    assert caught.value.retry_after_s == pytest.approx(0.2)
    caller.spend(40)
    # A new file changes nothing about what was spent.
    door.use(Keys([old, new, free]))
    with pytest.raises(TooFast):
        first.enter()


def test_a_batch_above_the_rate_is_slow_and_not_impossible() -> None:
    """It needs a full bucket, and is paid back before the next."""
    clock = Clock()
    key, text = make(metrics_per_s=10.0)
    caller = gate(key, clock=clock).recognise("/write", bearer(text), ()).enter()
    caller.spend(1000)
    with pytest.raises(TooFast) as caught:
        caller.spend(1)
    assert caught.value.retry_after_s == pytest.approx(99.1)
    clock.s += 99.1
    caller.spend(1)


def test_rates_of_a_rotation_do_not_add_up() -> None:
    """One bucket for all keys of a caller, by the newest valid one's rate, also for a stream that began before;
    what was spent stays spent."""
    clock = Clock()
    old, old_text = make(requests_per_s=2.0, metrics_per_s=10.0)
    new, new_text_ = make(
        caller=old.id, requests_per_s=4.0, metrics_per_s=5.0, expires=NOW + timedelta(seconds=60)
    )
    door = gate(old, clock=clock)
    with_old, with_new = (door.recognise("/write", bearer(text), ()) for text in (old_text, new_text_))
    stream = with_old.enter()
    with_old.enter()
    door.use(Keys([old, new]))
    with pytest.raises(TooFast, match="4 requests") as caught:
        with_new.enter()
    assert caught.value.retry_after_s == pytest.approx(0.25)
    clock.s += 1
    for admission in (with_old, with_new, with_old, with_new):
        admission.enter()
    for admission in (with_old, with_new):
        with pytest.raises(TooFast):
            admission.enter()
    stream.spend(5)
    for caller in (stream, with_new._caller):
        with pytest.raises(TooFast, match="5 metrics"):
            caller.spend(1)
    clock.s += 59  # the new key has expired
    stream.spend(5)
    clock.s += 1
    stream.spend(10)
    with pytest.raises(TooFast, match="10 metrics"):
        stream.spend(1)


def test_a_caller_without_rates_gets_some_with_its_next_key() -> None:
    """Also a stream that began before; they end with that key."""
    clock = Clock()
    old, text = make()
    new, _ = make(caller=old.id, metrics_per_s=5.0)
    door = gate(old, clock=clock)
    stream = door.recognise("/write", bearer(text), ()).enter()
    stream.spend(1000)
    door.use(Keys([old, new]))
    stream.spend(5)
    with pytest.raises(TooFast):
        stream.spend(1)
    door.use(Keys([old, new.model_copy(update={"revoked": NOW})]))
    stream.spend(1000)
