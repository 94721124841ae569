"""The event loop waits for an answer exactly when the slots gain by it."""

from hypothesis import given
from hypothesis import strategies as st

from agentic_jax.rollout import patience

_SECONDS = st.floats(0, 0.1)


def test_waits_for_many_but_not_for_one():
  # Thirty of thirty-two answers come in 1 ms, a tick takes 20 ms.
  assert 0.001 < patience.worth_waiting([0.001] * 30, 2, 0.02) < 0.003
  # One straggler in 5 ms does not hold up thirty-one slots.
  assert patience.worth_waiting([0.005], 31, 0.02) == 0
  # Nothing expected, or too late to save a tick.
  assert patience.worth_waiting([], 3, 0.02) == 0
  assert patience.worth_waiting([0.03] * 9, 1, 0.02) == 0


@given(st.lists(_SECONDS, max_size=6), st.integers(0, 6), _SECONDS)
def test_loses_least_of_all_moments(due, ready, tick):
  def lost(wait):
    """Slot-seconds, over those that join this tick and those that do not."""
    late = sum(seconds > wait for seconds in due)
    return ready * wait + (len(due) - late) * wait + late * tick

  found = patience.worth_waiting(due, ready, tick)
  moments = [0.0] + [seconds for seconds in due if seconds <= tick]
  # A millisecond is added so that the answer is there.
  slack = 0.001 * (ready + len(due)) + 1e-9
  # Those who come at once join without waiting.
  assert lost(found) <= min(lost(wait) for wait in moments) + slack


def test_parks_what_is_far_off_or_long_overdue():
  # 0.2 s to come, 0.05 s to lose: at once, but not when it is almost there.
  assert patience.worth_parking(0.2, 0.0, 0.05)
  assert patience.worth_parking(0.2, 0.14, 0.05)
  assert not patience.worth_parking(0.2, 0.16, 0.05)
  # Overdue: once the wait has cost what parking costs.
  assert not patience.worth_parking(0.2, 0.24, 0.05)
  assert patience.worth_parking(0.2, 0.26, 0.05)
  assert not patience.worth_parking(0.001, 0.0, 0.02)
