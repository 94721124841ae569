"""How long the event loop waits for environments, and who makes room."""

from collections.abc import Sequence


def worth_waiting(due: Sequence[float], ready: int, tick: float) -> float:
  """How long to wait before a tick, so that all slots together lose least.

  To wait w seconds costs each slot that is ready w. It spares each slot whose
  answer comes meanwhile tick - w: it need not sit out a tick begun at once.

  Args:
    due: seconds until answers are expected, in any order.
    ready: how many slots could decode now.
    tick: seconds that a tick takes, for few slots as for many.

  Returns:
    Seconds, 0 if nothing is worth waiting for. A millisecond more than the last
    answer that is waited for.
  """
  best, most = 0.0, 0.0
  for count, seconds in enumerate(sorted(due), start=1):
    gain = count * (tick - seconds) - ready * seconds
    if gain > most:
      best, most = seconds + 0.001, gain
  return best


def running_mean(mean: float | None, value: float) -> float:
  """A mean in which the newest value counts a fifth; the first begins it."""
  return value if mean is None else mean + 0.2 * (value - mean)


def worth_parking(expected: float, waited: float, cost: float) -> bool:
  """Whether a slot that waits should serve another episode meanwhile.

  To park costs all slots together `cost` slot-seconds. So it pays where the
  answer is further off than that; and where it is overdue, after as long a wait
  beyond: no choice without knowledge of the future loses less than twice the
  best one.

  Args:
    expected: seconds that an answer takes.
    waited: seconds since it was asked for.
    cost: seconds; of taking a segment out and putting it back, for each slot
      that waits for it.

  References:
    Karlin et al., 1988, Competitive snoopy caching, section 2 (to rent or buy).
  """
  return abs(expected - waited) > cost
