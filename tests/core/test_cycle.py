"""The transition table: what the design draws, no more."""

from __future__ import annotations

import pytest

from service.core.cycle import TERMINAL, TRANSITIONS, CycleState, check_transition
from service.core.errors import IllegalTransition


def test_every_state_has_an_entry_and_ends() -> None:
    assert set(TRANSITIONS) == set(CycleState)
    assert {CycleState.DONE, CycleState.REJECTED, CycleState.FAILED, CycleState.ROLLED_BACK} == TERMINAL


@pytest.mark.parametrize("before", list(CycleState))
@pytest.mark.parametrize("after", list(CycleState))
def test_the_table_decides(before: CycleState, after: CycleState) -> None:
    if after in TRANSITIONS[before]:
        check_transition(before, after)
        return
    with pytest.raises(IllegalTransition, match=f"{before} cannot become {after}"):
        check_transition(before, after)


def test_rollback_works_from_every_open_state() -> None:
    assert all(CycleState.ROLLED_BACK in TRANSITIONS[state] for state in CycleState if state not in TERMINAL)
