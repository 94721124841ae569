"""When to worry about what a step measured, and what to do next."""

from collections.abc import Callable, Mapping
import math
from typing import NamedTuple


class _Worry(NamedTuple):
  when: Callable[[Mapping[str, float]], bool]
  text: str


def _above(name: str, limit: float) -> Callable[[Mapping[str, float]], bool]:
  """Whether a metric is there and above a limit."""
  return lambda record: record.get(name, -math.inf) > limit


def _collapsed(record: Mapping[str, float]) -> bool:
  """Whether the policy is certain of its tokens and still fails."""
  return (
    record.get('policy/entropy', math.inf) < 0.01
    and record.get('rollout/success', 1.0) < 0.9
  )


def _spreadless(record: Mapping[str, float]) -> bool:
  """Whether most groups teach nothing: no spread, and no demonstration."""
  return (
    record.get('rollout/zero_spread_groups', 0) > 0.9
    and record.get('rollout/success', 0) <= 0.9
    and not record.get('demonstrations/episodes', 0)
  )


def _mismatched(record: Mapping[str, float]) -> bool:
  """Whether the two differ on a batch that its own sampler learns from."""
  gap = record.get('policy/ratio_mismatch', 0.0)
  return gap > 0.01 and not record.get('rollout/staleness', 0.0)


def _undemonstrated(record: Mapping[str, float]) -> bool:
  """Whether more than a tenth of the demonstrations ended in a fault."""
  failures = record.get('demonstrations/failures', 0)
  return failures > 0.1 * record.get('demonstrations/episodes', math.inf)


def _treeless(record: Mapping[str, float]) -> bool:
  """Whether prefix trees are asked for, and none of them fits."""
  return record.get('prefix_tree/fitting', 1.0) == 0


def _faulty(record: Mapping[str, float]) -> bool:
  """Whether more than a tenth of the episodes ended in a fault."""
  kinds = ('raised', 'hung', 'garbage', 'long')
  failures = sum(record.get(f'rollout/failures_{kind}', 0) for kind in kinds)
  return failures > 0.1 * record.get('rollout/episodes', math.inf)


_WORRIES = (
  _Worry(
    _spreadless,
    '{rollout/zero_spread_groups:.0%} of the groups have one reward for all '
    'their episodes and teach nothing. Take tasks that are neither always nor '
    'never solved, a larger group_size, or a recipe that samples such groups '
    'again (dapo).',
  ),
  _Worry(
    _collapsed,
    'Entropy has collapsed to {policy/entropy:.4f} nats a token at '
    '{rollout/success:.0%} success: the policy no longer explores. Lower the '
    'learning rate, raise the entropy bonus or clip_high, or start again from '
    'an earlier checkpoint.',
  ),
  _Worry(
    _above('rollout/truncated', 0.5),
    '{rollout/truncated:.0%} of the episodes are cut off by a limit and learn '
    'from an unfinished attempt. Raise the limits of tokens or turns, or '
    'charge for length.',
  ),
  _Worry(
    _mismatched,
    'Training and sampling disagree by {policy/ratio_mismatch:.4f} nats a '
    'token on a batch that was just sampled. Use float32, or truncated '
    'importance weights, and check that both see the same temperature.',
  ),
  _Worry(
    _above('rollout/invalid', 0.5),
    '{rollout/invalid:.0%} of the turns do not parse. Warm-start on '
    'demonstrations in the right format, or check the grammar: --inspect '
    'shows the episodes as the policy sees them.',
  ),
  _Worry(
    _above('policy/clip_fraction', 0.5),
    '{policy/clip_fraction:.0%} of the tokens are clipped and have no '
    'gradient. Take fewer epochs, a lower learning rate, or a wider clip.',
  ),
  _Worry(
    _faulty,
    'More than a tenth of the episodes ended in a fault of their environment. '
    'The field `detail` of the records in episodes/ says which.',
  ),
  _Worry(
    _treeless,
    'No microbatch found room in its prefix tree: rows are computed as they '
    'are. Raise --prefix_tree well above {prefix_tree/wanted:.2f}, or leave it '
    'out.',
  ),
  _Worry(
    _above('curriculum/stuck', 0),
    'Stage {curriculum/stage:.0f} of the curriculum has lasted '
    '{curriculum/steps:.0f} steps. Lower its threshold, make finer stages, or '
    'look at the episodes: the policy does not learn these tasks.',
  ),
  _Worry(
    _above('curriculum/forgotten', 0),
    '{curriculum/forgotten:.0f} earlier stages of the curriculum are being '
    'forgotten. Raise its review, such as review=0.4.',
  ),
  _Worry(
    _above('window/empty', 0),
    'For {window/empty:.0f} draws so far no task was within the window of '
    'success, and others were taken. Widen it, or take harder or easier tasks.',
  ),
  _Worry(
    _undemonstrated,
    '{demonstrations/failures:.0f} of {demonstrations/episodes:.0f} '
    'demonstrations ended in a fault, and their groups learn without. The '
    'field `detail` of the records in episodes/ says which: mend the oracle, '
    'or give the tasks answers.',
  ),
)


def warnings_of(record: Mapping[str, float]) -> list[str]:
  """What is worth a warning in the metrics of a step, and what to do next.

  Args:
    record: names and values; what is missing causes no warning.
  """
  return [
    worry.text.format_map(record) for worry in _WORRIES if worry.when(record)
  ]
