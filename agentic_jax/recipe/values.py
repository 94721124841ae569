"""Critics: how a value is said, and how it is learnt."""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import Any, NamedTuple

from agentic_jax import losses
from agentic_jax import types
from agentic_jax.recipe import choices
from agentic_jax.types import Array

# What a critic says of a state, with the settings that belong to it.
FORMS: Mapping[str, Mapping[str, Any]] = {
  'scalar': {},
  'two_hot': {'value_bins': 51, 'value_low': -1.0, 'value_high': 1.0},
  'hl_gauss': {
    'value_bins': 51,
    'value_low': -1.0,
    'value_high': 1.0,
    'value_smoothing': 0.75,
  },
  'quantile': {'value_quantiles': 32, 'value_huber': 0.1},
}


class Critic(NamedTuple):
  """What a recipe wants of its critic.

  Attributes:
    heads: of the policy.
    error: (outputs, returns, old_values) -> [B, T], the loss of its values;
      `old_values` are those of before the batch, which scalars may be clipped
      to.
  """

  heads: types.Heads
  error: Callable[[types.Outputs, Array, Array], Array]


def critic(
  value_clip: float,
  *,
  critic: str = 'shared',
  value_form: str = 'scalar',
  value_bins: int | None = None,
  value_low: float | None = None,
  value_high: float | None = None,
  value_smoothing: float | None = None,
  value_quantiles: int | None = None,
  value_huber: float | None = None,
) -> Critic:
  """The critic that a recipe's settings ask for.

  Whatever its form, the value that credit is made of is the mean.

  Args:
    value_clip: how far a scalar value may move from where it was; 0 is no clip,
      and all that other forms take.
    critic: shared is a head on the policy's trunk, separate one on a trunk of
      its own, which begins as a copy of the policy's.
    value_form: what is said of a return: scalar is its mean, two_hot and
      hl_gauss are its distribution over bins, quantile its quantiles.
    value_bins: how many, at even distances; by default 51.
    value_low: the return that the first bin stands for, and all below it; by
      default -1.
    value_high: the return that the last bin stands for, and all above it; by
      default 1.
    value_smoothing: of hl_gauss, the spread of a return in widths of a bin; by
      default 0.75.
    value_quantiles: how many; by default 32.
    value_huber: up to which error quantiles are learnt by its square, above by
      its size; by default 0.1, which is little to a return of 1: within its
      reach they are expectiles, whose mean is another one.

  Raises:
    ValueError: a setting is out of range, or plays no part in the form.
  """
  choices.refuse_unknown('critic', critic, ('shared', 'separate'))
  chosen = choices.choose_form(
    FORMS,
    value_form,
    setting='value_form',
    value_bins=value_bins,
    value_low=value_low,
    value_high=value_high,
    value_smoothing=value_smoothing,
    value_quantiles=value_quantiles,
    value_huber=value_huber,
  )
  if value_clip and value_form != 'scalar':
    raise ValueError(
      f'{value_clip=} is for scalar values, and {value_form=} says a '
      'distribution; use --set value_clip=0, or --set value_form=scalar.'
    )
  _refuse_out_of_range(chosen)
  head, error = _read_and_learn(value_form, value_clip, **chosen)
  return Critic(types.Heads(value=head, separate=critic == 'separate'), error)


def split_settings(
  given: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The settings of `critic` among those given, and the others."""
  known = inspect.signature(critic).parameters.keys() - {'value_clip'}
  return (
    {k: v for k, v in given.items() if k in known},
    {k: v for k, v in given.items() if k not in known},
  )


def _refuse_out_of_range(chosen: Mapping[str, Any]) -> None:
  for name in ('value_smoothing', 'value_quantiles'):
    if name in chosen and chosen[name] <= 0:
      raise ValueError(f'{name}={chosen[name]} must be positive.')
  if chosen.get('value_huber', 0) < 0:
    raise ValueError(
      f'value_huber={chosen["value_huber"]} must not be negative; 0 takes all '
      'errors by their size.'
    )
  if 'value_bins' in chosen and (
    chosen['value_bins'] < 2 or chosen['value_low'] >= chosen['value_high']
  ):
    raise ValueError(
      f'value_bins={chosen["value_bins"]} must be at least 2, and '
      f'value_low={chosen["value_low"]} below '
      f'value_high={chosen["value_high"]}: between them lie the returns of the '
      'world.'
    )


def _read_and_learn(
  form: str,
  value_clip: float,
  *,
  value_bins: int = 0,
  value_low: float = 0.0,
  value_high: float = 0.0,
  value_smoothing: float = 0.0,
  value_quantiles: int = 0,
  value_huber: float = 0.0,
) -> tuple[types.ValueHead, Callable[..., Array]]:
  """The head of a form, and its loss."""
  head = types.ValueHead(
    bins=value_bins,
    low=value_low,
    high=value_high,
    quantiles=value_quantiles,
  )
  band: dict[str, Any] = dict(low=value_low, high=value_high, bins=value_bins)
  spread = {
    'two_hot': functools.partial(losses.two_hot, **band),
    'hl_gauss': functools.partial(
      losses.smoothed, smoothing=value_smoothing, **band
    ),
  }

  def error(outputs, returns, old_values):
    if form == 'scalar':
      return losses.value_loss(
        outputs.values,
        returns,
        old_values=old_values if value_clip else None,
        clip=value_clip or None,
      )
    if form == 'quantile':
      return losses.quantile_loss(
        outputs.value_parts, returns, huber=value_huber
      )
    return losses.bin_loss(outputs.value_parts, spread[form](returns))

  return head, error
