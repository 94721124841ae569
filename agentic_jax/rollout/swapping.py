"""Parameters that change between the turns of the episodes of a batch."""

from collections.abc import Callable
from typing import Any

from agentic_jax.rollout import episodes
from agentic_jax.rollout import playing
from agentic_jax.sampling import sampler as sampler_lib

# The policy step of every turn of an episode, by (draw, member).
Schedule = dict[tuple[int, int], list[int]]


class Swaps:
  """Which parameters sample the turns of a batch, and what came of it.

  Attributes:
    stale: whether a segment goes on from the cache that older parameters wrote;
      otherwise it is read again by those that go on.
    schedule: of the turns that were asked for.
    changes: how often other parameters were loaded.
    rebuilt_tokens: that were read again.
    stale_tokens: that were sampled from a cache which other parameters wrote,
      at least in part: no parameters reproduce their log-probabilities.
  """

  def __init__(
    self,
    version: Callable[[int, int, int], int],
    params: Callable[[int], Any],
    *,
    stale: bool = False,
  ):
    """Nothing was sampled yet.

    Args:
      version: (draw, member, turn) -> the policy step that is to sample a turn
        which may begin now. It may be another one when asked again.
      params: (policy step) -> parameters of the policy; may wait for them.
      stale: see above.
    """
    self.version, self.params, self.stale = version, params, stale
    self.schedule: Schedule = {}
    self.changes = self.rebuilt_tokens = self.stale_tokens = 0

  def age(self, step: int) -> float:
    """How many steps the parameters lag behind `step`, a mean over turns."""
    steps = [at for own in self.schedule.values() for at in own]
    return step - sum(steps) / max(len(steps), 1)

  def metrics(self) -> dict[str, float]:
    """As metrics."""
    return {
      'rollout/swaps': float(self.changes),
      'rollout/rebuilt_tokens': float(self.rebuilt_tokens),
      'rollout/stale_tokens': float(self.stale_tokens),
    }


class Gate:
  """Lets turns begin under the parameters that are to sample them.

  A turn that is to be sampled by others than those in the sampler is held. Once
  no slot generates they are loaded. So a turn is sampled wholly by one set of
  parameters, and what an episode says follows from its own row of the schedule,
  whatever the others do.
  """

  def __init__(self, sampler: sampler_lib.Sampler, swaps: Swaps):
    self._sampler = sampler
    self._swaps = swaps
    self._held: list[playing.Playing] = []
    # Whose cache an episode's segment has, by its number; -1: of several.
    self._written: dict[int, int] = {}

  @property
  def parks(self) -> bool:
    """Whether segments may be parked: a swap outdates what is parked."""
    return not self._swaps.stale

  def admits(self, own: playing.Playing) -> bool:
    """Whether the turn that is due may be asked for; otherwise it is held."""
    wanted = self._wanted(own)
    if wanted != self._sampler.policy_step:
      self._held.append(own)
      return False
    request = own.builder.request
    key = request.draw, request.member
    self._swaps.schedule.setdefault(key, []).append(wanted)
    return True

  def _wanted(self, own: playing.Playing) -> int:
    request: episodes.Request = own.builder.request
    return self._swaps.version(request.draw, request.member, own.builder.turn)

  def release(self) -> list[playing.Playing]:
    """Those held, once their parameters, or the first of them, are loaded."""
    if not self._held or self._sampler.num_active:
      return []
    held, self._held = self._held, []
    wanted = min(map(self._wanted, held))
    self._sampler.swap(self._swaps.params(wanted), wanted)
    self._swaps.changes += 1
    return held

  def reads_again(self, own: playing.Playing) -> bool:
    """Whether a turn that was admitted wants its segment read anew."""
    here, before = self._sampler.policy_step, self._written.get(own.number)
    again = before is None or (before != here and not self._swaps.stale)
    again = again or own.builder.opens_segment
    if again and not own.builder.opens_segment:
      self._swaps.rebuilt_tokens += len(own.builder.open_tokens)
    self._written[own.number] = here if again or before == here else -1
    return again

  def forget(self, own: playing.Playing) -> None:
    """The cache of an episode's segment is lost."""
    self._written.pop(own.number, None)

  def stale(self, own: playing.Playing, tokens: int) -> bool:
    """Whether a turn, of so many tokens, came from a cache of several."""
    if self._written[own.number] >= 0:
      return False
    self._swaps.stale_tokens += tokens
    return True
