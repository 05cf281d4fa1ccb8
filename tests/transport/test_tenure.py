"""When a connection is sent away or cut off: told by the clock and by what is seen of it, no more."""

from __future__ import annotations

from ingestor.transport.bounds import Bounds
from ingestor.transport.grpc.floods import BURST, REFILL_A_SECOND, Budget
from ingestor.transport.grpc.tenure import Due, Seen, Tenure
from ingestor.transport.stalls import Stall

BOUNDS = Bounds(header_timeout_s=10, send_timeout_s=30, idle_s=900, age_max_s=0)
QUIET = Seen(heard=1, partial=False, calls=0, last_call_at=0.0, unread=None)


def looks(tenure: Tenure, *seen: tuple[float, Seen]) -> list[Due]:
    return [tenure.due(now, each) for now, each in seen]


def test_a_connection_that_never_begins_is_cut_off() -> None:
    """Whether it is silent, or sends bytes that never are a frame."""
    silent = QUIET._replace(heard=0)
    for seen in (silent, silent._replace(partial=True)):
        assert looks(Tenure(BOUNDS, 0.0, 0.0), (10.0, seen), (10.1, seen)) == [Due.NOTHING, Due.CUT]


def test_a_frame_that_does_not_come_to_its_end_is_cut_off() -> None:
    """Ten seconds after the last that did; while others come, each may be seen half."""
    half = QUIET._replace(partial=True)
    busy = [(float(now), half._replace(heard=now)) for now in range(1, 100)]
    tenure = Tenure(BOUNDS, 0.0, 0.0)
    assert set(looks(tenure, *busy)) == {Due.NOTHING}
    last = busy[-1][1]
    assert looks(tenure, (108.0, last), (109.1, last)) == [Due.NOTHING, Due.CUT]


def test_a_connection_without_calls_is_sent_away() -> None:
    """Counted from its last call."""
    tenure = Tenure(BOUNDS, 0.0, 0.0)
    for now in range(0, 2000, 20):
        assert tenure.due(float(now), QUIET._replace(heard=now + 1, calls=1)) is Due.NOTHING
    late = QUIET._replace(heard=5000, last_call_at=2300.0)
    assert looks(tenure, (3200.0, late), (3200.1, late._replace(heard=1))) == [Due.NOTHING, Due.DEPART]


def test_an_old_connection_is_sent_away_whatever_it_does() -> None:
    """Its calls are answered first, which is not decided here."""
    tenure = Tenure(BOUNDS, 0.0, 1800.0)
    busy = QUIET._replace(calls=7)
    seen = [(1800.0, busy._replace(heard=2)), (1800.1, busy._replace(heard=3))]
    assert looks(tenure, *seen) == [Due.NOTHING, Due.DEPART]


def test_who_does_not_read_is_cut_off() -> None:
    """64 KiB in the time are enough; a trickle is not. And who holds us up is not asked, as it is not heard."""
    tenure = Tenure(BOUNDS, 0.0, 0.0)
    left = [(float(now), QUIET._replace(unread=10_000_000 - now * 2_200)) for now in range(1000)]
    assert set(looks(tenure, *left)) == {Due.NOTHING}
    trickle = [(1000.0 + now, QUIET._replace(unread=1_000_000 - now * 100)) for now in range(32)]
    assert looks(tenure, *trickle)[-2:] == [Due.NOTHING, Due.CUT]


def test_a_stall_that_ends_is_forgotten() -> None:
    """The next one has all of its time again."""
    stall = Stall(30.0)
    looks_at = ((0.0, 9), (30.0, 9), (31.0, None), (60.0, 9), (90.0, 9))
    assert not any(stall.is_over(now, left) for now, left in looks_at)
    assert stall.is_over(90.1, 9)


def test_what_is_spent_comes_back_with_time_and_no_further() -> None:
    """What calls earned is not kept for a flood later."""
    budget = Budget()
    budget.spend(BURST)
    assert budget.left == 0
    budget.spend()
    assert budget.left < 0
    budget.refill(1.0)
    assert budget.left == REFILL_A_SECOND - 1
    for _ in range(BURST):
        budget.earn()
    assert budget.left > BURST
    budget.refill(0.0)
    assert budget.left == BURST
