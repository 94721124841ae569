"""No setting is silent: each is changed, and has to be felt where it should be.

A table says of each setting of a maker another value, and whether it is felt in
the arrays of a batch (credit, weights, loss), in what is decided on the host
(who is played, kept or forked), or in both. It has to be felt there and nowhere
else: were one enough, a setting that changes the size of a group could be
forgotten by the credit that it is of too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from tests import tree_batches


class Others(NamedTuple):
  """For some settings of a maker another value, at which its result differs.

  `given` are settings without which the others could make no difference; what
  they name is not compared itself, so it stands in another row of the maker.
  """

  arrays: dict[str, Any] = {}  # Felt in the arrays of a batch.
  given: dict[str, Any] = {}
  host: dict[str, Any] = {}  # Felt in what is decided on the host.


class Found(NamedTuple):
  """What a recipe makes of a batch."""

  host: Any  # Compared by ==.
  arrays: Sequence[np.ndarray]


def decided(made: recipe_lib.Recipe, turns: types.Turns) -> Any:
  """What a recipe decides on the host, the optimiser aside."""
  names = ('group_size', 'demonstrations', 'greedy_members')
  names += ('epochs', 'minibatches', 'sampling', 'heads')
  fields = {name: getattr(made, name) for name in names}
  return fields | {
    'keep': kept(made, turns),
    'branch': tree_batches.branched(made),
  }


def kept(made: recipe_lib.Recipe, turns: types.Turns) -> list[list[bool]]:
  """What `keep` says of the episodes of each group."""
  if made.keep is None:
    return []
  rows = [turns.group == g for g in np.unique(turns.group[turns.group >= 0])]
  groups = [jax.tree.map(lambda x, own=own: x[own], turns) for own in rows]
  return [np.asarray(made.keep(group)).tolist() for group in groups]


def differ(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
  """Whether arrays differ by more than rounding."""
  if len(one) != len(other):
    return True
  return any(
    x.shape != y.shape or not np.allclose(x, y, rtol=1e-4, atol=1e-5)
    for x, y in zip(one, other)
  )


def own_settings(maker: Callable[..., recipe_lib.Recipe]) -> set[str]:
  """The settings of a maker that are not those of all recipes, or critics."""
  known = recipe_lib.settings_of(maker).keys()
  of_critics = recipe_lib.settings_of(recipe_lib.critic).keys()
  of_all = recipe_lib.settings_of(recipe_lib.training).keys()
  return known - of_all - (of_critics - {'value_clip'})


def walk(
  settings: set[str], rows: Sequence[Others], find: Callable[..., Found]
) -> None:
  """Asserts that each setting makes itself felt where the table says.

  Args:
    settings: that the table has to name, neither more nor fewer.
    rows: the table.
    find: (**settings) -> Found.
  """
  named: set[str] = set()
  plains: dict[str, Found] = {}
  for others in rows:
    key = repr(others.given)
    plain = plains[key] = plains.get(key) or find(**others.given)
    for setting in others.arrays.keys() | others.host.keys():
      felt, wanted = set(), set()
      for place in ('arrays', 'host'):
        values = getattr(others, place)
        if setting in values:
          wanted.add(place)
          other = find(**others.given | {setting: values[setting]})
          felt |= _felt(plain, other)
      said = f'{setting} with {others.given}'
      assert felt == wanted, f'{said}: felt in {felt}, not in {wanted}'
      named.add(setting)
  assert named == settings, f'other settings: {named ^ settings}'


def _felt(plain: Found, other: Found) -> set[str]:
  """Where two results differ."""
  unlike = {
    'arrays': differ(plain.arrays, other.arrays),
    'host': plain.host != other.host,
  }
  return {place for place, is_unlike in unlike.items() if is_unlike}
