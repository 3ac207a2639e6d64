"""What outcomes of hits do to a stored answer."""

from hypothesis import given
from hypothesis import strategies as st

from mcpgate.cache.semantic.trust import Trust, checked, dropped, threshold, wrong_share


def test_before_any_outcome_an_entry_is_as_good_as_the_verifier_says() -> None:
    assert wrong_share(Trust(), 0.01) == 0.01
    assert threshold(Trust(), 0.9, 0.01) == 0.9
    assert not dropped(Trust())
    assert checked(Trust(), 0.05) == 1


def test_a_wrong_hit_asks_for_more_certainty_and_right_ones_give_it_back() -> None:
    once = Trust(right=5, wrong=1)
    assert threshold(once, 0.9, 0.01) > 0.9
    assert threshold(Trust(right=500, wrong=1), 0.9, 0.01) < threshold(once, 0.9, 0.01)
    assert threshold(Trust(right=500), 0.9, 0.01) == 0.9


def test_an_entry_that_is_often_wrong_is_dropped() -> None:
    assert dropped(Trust(wrong=1))
    assert dropped(Trust(right=5, wrong=5))
    assert not dropped(Trust(right=8, wrong=2))
    assert not dropped(Trust(right=100, wrong=5))


def test_outcomes_are_counted_in_new_values() -> None:
    first = Trust()
    assert first.after(right=True).after(right=False) == Trust(1, 1)
    assert first == Trust()


counts = st.integers(0, 10_000)


@given(counts, counts, st.floats(0.01, 0.999), st.floats(0.0001, 0.2))
def test_the_threshold_stays_between_the_base_and_one(right: int, wrong: int, base: float, rate: float) -> None:
    own = threshold(Trust(right, wrong), base, rate)
    assert base - 1e-9 <= own <= 1
    assert own <= threshold(Trust(right, wrong + 1), base, rate) + 1e-9
    assert own >= threshold(Trust(right + 1, wrong), base, rate) - 1e-9
