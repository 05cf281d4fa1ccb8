"""Label sets and their ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingestor.model import label_set

labels = st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), min_size=1, max_size=5)


@given(labels)
def test_the_order_of_labels_does_not_matter(given_labels: dict[str, str]) -> None:
    """A set is a set: any order gives the same id and document."""
    assert label_set(given_labels) == label_set(dict(reversed(given_labels.items())))


@given(labels, labels)
def test_different_sets_have_different_ids(one: dict[str, str], other: dict[str, str]) -> None:
    """Also where names and values run into each other, such as {"a": "b"} and {"ab": ""}."""
    assert (label_set(one).id == label_set(other).id) == (one == other)


@given(labels)
def test_an_id_fits_a_bigint_and_is_never_that_of_no_labels(given_labels: dict[str, str]) -> None:
    """Ids are positive and have 63 bits."""
    assert 0 < label_set(given_labels).id < 2**63


def test_an_id_never_changes() -> None:
    """Ids are stored; another release must compute the same."""
    assert label_set({"region": "eu", "host": "a"}).id == 6700415125064090765  # b2sum -l 64, halved
