"""What may be held at once, and who is let go first."""

from __future__ import annotations

from ingestor.transport.holding import Held, Holding


def holder(holding: Holding, name: str, gone: list[str]) -> Held:
    return holding.begin(lambda: gone.append(name))


def test_who_stood_still_the_longest_is_let_go() -> None:
    """Not who came first, and not who holds most."""
    gone: list[str] = []
    holding = Holding(100)
    first, second, third = (holder(holding, name, gone) for name in ("first", "second", "third"))
    first.grow(20)
    second.grow(60)
    first.grow(5)
    third.grow(20)
    assert gone == ["second"]
    assert holding.bytes == 45
    second.grow(1000)
    assert holding.bytes == 45


def test_what_has_ended_holds_nothing() -> None:
    """Nor is it let go later."""
    gone: list[str] = []
    holding = Holding(100)
    first, second = holder(holding, "first", gone), holder(holding, "second", gone)
    first.grow(90)
    first.end()
    first.end()
    second.grow(100)
    assert (gone, holding.bytes) == ([], 100)
    second.grow(-40)
    assert holding.bytes == 60


def test_one_that_is_too_large_alone_is_let_go_itself() -> None:
    """After all others."""
    gone: list[str] = []
    holding = Holding(100)
    small, large = holder(holding, "small", gone), holder(holding, "large", gone)
    small.grow(10)
    large.grow(101)
    assert (gone, holding.bytes) == (["small", "large"], 0)


def test_what_is_held_counts_within_a_larger_bound_too() -> None:
    """Over several smaller ones; the books of all of them stay right."""
    gone: list[str] = []
    all_of_them = Holding(100)
    here, there = Holding(70, within=all_of_them), Holding(70, within=all_of_them)
    first = holder(here, "first", gone)
    first.grow(60)
    holder(here, "second", gone).grow(20)
    assert (gone, here.bytes, all_of_them.bytes) == (["first"], 20, 20)
    third = holder(there, "third", gone)
    third.grow(60)
    third.grow(9)
    holder(here, "fourth", gone).grow(12)
    assert (gone, here.bytes, there.bytes, all_of_them.bytes) == (["first", "second"], 12, 69, 81)
    holder(there, "alone", gone).grow(71)
    assert (here.bytes, there.bytes, all_of_them.bytes) == (12, 0, 12)
