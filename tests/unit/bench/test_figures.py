"""Figures of merit, and whose turn it is."""

import pytest
from bench.figures import alternating, percentile, summary
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def test_the_percentile_is_the_value_that_its_share_does_not_exceed():
    values = [float(n) for n in range(20, 0, -1)]
    assert percentile(values, 0.5) == 10
    assert percentile(values, 0.95) == 19
    assert percentile(values, 1) == 20
    assert percentile([3.0], 0.95) == 3


@given(VALUES, st.floats(0.01, 1))
def test_at_least_its_share_of_the_values_does_not_exceed_a_percentile(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_or_beyond_all_is_an_error(values, share):
    with pytest.raises(ValueError):
        percentile(values, share)


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle():
    assert summary([4.0, 1.0, 3.0, 2.0])["median"] == 2.5
    assert summary([]) == {}


def test_competitors_take_turns_and_nobody_is_always_first():
    order = list(alternating(["a", "b", "c"], 4))
    assert [name for number, name in order if number == 1] == ["b", "c", "a"]
    assert [order[3 * n][1] for n in range(4)] == ["a", "b", "c", "a"]
    for name in "abc":
        assert [number for number, who in order if who == name] == [0, 1, 2, 3]
    assert list(alternating([], 3)) == []
