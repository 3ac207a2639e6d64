"""The health of targets: who rests, and who may try them again."""

from mcpgate.llm.targets import Targets


def test_a_rested_target_that_was_considered_and_not_used_can_still_be_tried() -> None:
    now = 0.0
    targets = Targets(clock=lambda: now)
    for _ in range(5):
        targets.failed("a")
    assert not targets.may_try("a")
    now = 11.0
    assert targets.may_try("a") and targets.may_try("a"), "asking is not trying"
    targets.began("a")
    assert not targets.may_try("a"), "a single request tries it"
    targets.ended("a")
    assert targets.may_try("a")
