"""What every page of experiments/ owes: no silent setting, no leaking gradient.

A new page adds its row to `OTHERS`. The batch is far off-policy, and is scored,
credited, prepared and weighed as in training; a model is not needed for it.
"""

from collections.abc import Sequence
import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import pages
from tests import critics_test
from tests import pages_credit_test
from tests import pages_preferences_test
from tests import tiny_training
from tests import tree_batches


class Others(NamedTuple):
  """For each setting of a page another value, at which its result differs.

  `given` are settings without which the others could make no difference; what
  they name is not compared itself, so it stands in another row of the page.
  """

  values: dict[str, Any]
  given: dict[str, Any] = {}


_BAND = {'clip_low': 0.1, 'clip_high': 0.1}
OTHERS: dict[str, tuple[Others, ...]] = {
  'agent_omit': (
    Others({'group_size': 4, 'share': 0.5, 'kl_coefficient': 0.3} | _BAND),
  ),
  'async_grpo': (
    Others({'group_size': 4, 'correction': 'none', 'level': 'sequence'}),
    Others({'low': 0.9, 'high': 1.1} | _BAND),
    Others({'correction': 'decoupled', 'level': 'geometric'}),
    Others({'low': 0.9, 'high': 1.1}, {'correction': 'masked'}),
    Others({'level': 'sequence'} | _BAND, {'correction': 'decoupled'}),
    Others(_BAND, {'correction': 'none'}),
    Others({'correction': 'clip'}, {}),
    Others(_BAND, {'correction': 'clip'}),
  ),
  'chord': (
    Others({'group_size': 4, 'demonstrations': 2, 'form': 'constant'} | _BAND),
    Others({'peak': 0.5, 'valley': 0.2, 'rise_steps': 9, 'fall_steps': 20}),
    Others({'share': 0.5, 'form': 'phi'}, {'form': 'constant'}),
    Others({'share': 0.5} | _BAND, {'form': 'phi'}),
  ),
  'cispo': (Others({'group_size': 4, 'clip_low': 0.5, 'clip_high': 0.5}),),
  'clip_cov': (
    Others({'group_size': 4, 'share': 0.5} | _BAND),
    Others({'covariance_low': 0.4, 'covariance_high': 1.14}, {'share': 1.0}),
  ),
  'dppo': (
    Others({'group_size': 4, 'divergence': 'binary_kl', 'cap': 1.5}),
    Others({'limit_low': 0.02, 'limit_high': 0.02}),
    Others(
      {'limit_low': 0.02, 'limit_high': 0.02, 'cap': 1.5},
      {'divergence': 'binary_kl'},
    ),
  ),
  'dr_grpo': (Others({'group_size': 4, 'length_tokens': 7} | _BAND),),
  'gmpo': (Others({'group_size': 4} | _BAND),),
  'gspo': (Others({'group_size': 4} | _BAND),),
  'kimi': (Others({'group_size': 4, 'square_coefficient': 0.3}),),
  'kl_cov': (Others({'group_size': 4, 'share': 0.2, 'penalty': 0.3}),),
  'luffy': (
    Others({'group_size': 4, 'demonstrations': 2, 'shaping': 0.3} | _BAND),
  ),
  'rl_plus': (
    Others({'group_size': 4, 'demonstrations': 2, 'exploration': 0.0}),
  ),
  'remax': (Others({'group_size': 4, 'greedy_members': 2}),),
  'sapo': (
    Others(
      {
        'group_size': 4,
        'temperature_positive': 2.0,
        'temperature_negative': 2.0,
      }
    ),
  ),
  'segment_ppo': (
    Others({'group_size': 4, 'part': 'sequence'} | _BAND),
    Others(_BAND, {'part': 'sequence'}),
  ),
  'spin': (Others({'beta': 0.3}),),
  'torl': (Others({'group_size': 4} | _BAND),),
  'topr': (Others({'group_size': 4, 'threshold': 0.8, 'level': 'token'}),),
  'vespo': (
    Others(
      {
        'group_size': 4,
        'shape_positive': 1.0,
        'rate_positive': 1.0,
        'shape_negative': 1.0,
        'rate_negative': 1.0,
      }
    ),
  ),
}


class Batch(NamedTuple):
  """Two microbatches of episodes, and what each policy says of their tokens."""

  trajectory: types.Trajectory
  turns: types.Turns
  networks: recipe_lib.Networks  # What they say, instead of parameters.
  outputs: types.Outputs  # Of the policy, some steps after the batch began.


@functools.cache
def batch() -> Batch:
  """Ragged episodes of two turns in one segment or two; no page changes it."""
  episodes = [
    tree_batches.numbered(
      e._replace(baseline={'final': 0.3 * e.draw, 'process': 0.1}),
      [i % 3 // 2, 2 + i % 3],
      [0.3 * i, 0.5],
    )
    for i, e in enumerate(tiny_training.episodes(1, groups=4, members=3))
  ]
  shape = batching.Shape(16, 20, 8, 13, 3, 13)
  stacked = batching.stack(episodes, shape)
  assert stacked.microbatches == 2
  rng = np.random.default_rng(0)
  size = stacked.trajectory.tokens.shape
  draw = lambda scale: rng.normal(size=size, scale=scale).astype(np.float32)
  sampler = -rng.uniform(0.1, 2.5, size).astype(np.float32)

  def outputs(scale):
    logprobs = np.minimum(sampler + draw(scale), -0.01)
    return types.Outputs(logprobs, np.abs(draw(1.0)), draw(0.7))

  return Batch(
    stacked.trajectory._replace(sampler_logprobs=sampler),
    stacked.turns,
    recipe_lib.Networks(policy=outputs(0.6), reference=outputs(0.3)),
    outputs(0.5),
  )


def mixed(trajectory: types.Trajectory) -> types.Trajectory:
  """As if the last member of each group were a demonstration, in step 5."""
  shown = trajectory.episode % 3 == 2
  return trajectory._replace(
    policy_step=np.where(
      trajectory.action_mask & ~shown, np.int32(5), np.int32(-1)
    ),
    sampler_logprobs=np.where(
      shown, np.float32(0), trajectory.sampler_logprobs
    ),
  )


def scored(made: recipe_lib.Recipe):
  """The trajectory and the credit with which the losses of a batch are made."""
  trajectory, turns, networks, _ = batch()
  if made.demonstrations:
    trajectory = mixed(trajectory)
  if not made.uses_reference:
    networks = networks._replace(reference=None)
  apply = lambda said, trajectory: said
  trajectory = made.score(apply, networks, trajectory, turns)
  credit = made.credit(trajectory, turns)
  return trajectory, made.prepare(networks.policy, trajectory, credit)


def total(made, outputs, trajectory, credit, weights):
  """The scalar of the train step."""
  found = made.loss(outputs, trajectory, credit)
  assert found.keys() == weights.keys()
  return sum(
    jnp.sum(jnp.where(weights[k] != 0, weights[k] * v, 0.0))
    for k, v in found.items()
  )


def kept(made: recipe_lib.Recipe) -> list[list[bool]]:
  """What `keep` says of the episodes of each group."""
  if made.keep is None:
    return []
  turns = batch().turns
  rows = [turns.group == g for g in np.unique(turns.group[turns.group >= 0])]
  groups = [jax.tree.map(lambda x, own=own: x[own], turns) for own in rows]
  return [np.asarray(made.keep(group)).tolist() for group in groups]


def decided(made: recipe_lib.Recipe) -> tuple[Any, ...]:
  """What a recipe decides on the host, the optimiser aside."""
  names = ('group_size', 'demonstrations', 'greedy_members')
  names += ('epochs', 'minibatches', 'sampling', 'heads')
  fields = [getattr(made, name) for name in names]
  return fields, kept(made), tree_batches.branched(made)


def result(made: recipe_lib.Recipe) -> list[np.ndarray]:
  """What a recipe makes of the batch.

  The scalar stands for what the loss does with credit and weights.
  """
  trajectory, credit = scored(made)
  weights = made.weigh(trajectory, batch().turns)
  scalar = total(made, batch().outputs, trajectory, credit, weights)
  arrays = jax.tree.leaves((scalar, credit, weights))
  return [*map(np.asarray, arrays)]


def differ(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
  if len(one) != len(other):
    return True
  pairs = zip(one, other)
  return any(
    x.shape != y.shape or not np.allclose(x, y, rtol=1e-5, atol=1e-7)
    for x, y in pairs
  )


def own_settings(maker) -> set[str]:
  """The settings of a page that are not those of all recipes, or critics."""
  shared = {
    *inspect.signature(recipe_lib.training).parameters,
    *critics_test.SHARED,
  }
  return recipe_lib.settings_of(maker).keys() - shared


@pytest.mark.parametrize('name', sorted(OTHERS))
def test_every_setting_makes_a_difference(name):
  walk(name, OTHERS[name])


def walk(name: str, rows: Sequence[Others]) -> None:
  """Asserts that each setting of a page, and no other, makes itself felt."""
  maker = pages.load(name)
  seen = set()
  for others in rows:
    plain = maker(**others.given)
    wanted = functools.cache(lambda plain=plain: result(plain))
    for setting, value in others.values.items():
      made = maker(**others.given | {setting: value})
      if decided(made) == decided(plain):
        assert differ(wanted(), result(made)), f'{setting}={value!r} is silent'
    seen |= others.values.keys()
  assert seen == own_settings(maker)


def test_the_settings_of_every_page_are_walked():
  """Here, or in the files of credit, preferences, trees and probes."""
  from tests import pages_probes_test  # It imports this one.

  elsewhere = {
    *pages_credit_test.OWN,
    *pages_preferences_test.OTHERS,
    *pages_probes_test.OTHERS,
    *tree_batches.PAGES,
    'reward_model',  # In its own file, for it learns nothing of the policy.
  }
  assert OTHERS.keys() | elsewhere == pages.names().keys()


@pytest.mark.parametrize('name', sorted(OTHERS))
def test_it_learns_from_action_tokens_alone(name):
  made = pages.load(name)()
  trajectory, credit = scored(made)
  mask = trajectory.action_mask
  for leaf in jax.tree.leaves(credit):
    assert np.all(np.isfinite(leaf))
  assert not np.any(np.asarray(credit.advantages)[~mask])
  weights = made.weigh(trajectory, batch().turns)
  for weight in weights.values():
    assert np.all(np.isfinite(weight)) and not np.any(np.asarray(weight)[~mask])

  def scalar(outputs):
    return total(made, outputs, trajectory, credit, weights)

  value, gradient = jax.value_and_grad(scalar)(batch().outputs)
  assert np.isfinite(value)
  assert np.any(gradient.logprobs)
  for leaf in jax.tree.leaves(gradient):
    assert np.all(np.isfinite(leaf))
    assert not np.any(np.asarray(leaf)[~mask])
  assert bool(made.heads.value) == bool(np.any(gradient.values))
  for measured in made.measure(batch().outputs, trajectory, credit).values():
    assert np.shape(measured) == mask.shape
    assert np.all(np.isfinite(np.asarray(measured)[mask]))
  # What is said of other tokens does not matter.
  noise = jax.tree.map(lambda x: np.where(mask, x, x - 3.0), batch().outputs)
  assert scalar(noise) == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize('name', sorted(OTHERS))
def test_microbatches_add_up(name):
  made = pages.load(name)()
  trajectory, credit = scored(made)
  whole = (
    batch().outputs,
    trajectory,
    credit,
    made.weigh(trajectory, batch().turns),
  )
  parts = [
    jax.tree.map(lambda x, rows=rows: x[rows], whole)
    for rows in (slice(0, 8), slice(8, 16))
  ]
  sums = [float(total(made, *part)) for part in parts]
  assert all(sums)
  assert sum(sums) == pytest.approx(float(total(made, *whole)), rel=1e-4)


@pytest.mark.parametrize('name', sorted(OTHERS))
def test_one_optimiser_step_leaves_the_rest_of_the_batch_alone(name):
  """With minibatches the weights are of the rows of one; others have none."""
  made = pages.load(name)()
  trajectory, _ = scored(made)
  first = trajectory.action_mask & (np.arange(16) < 8)[:, None]
  weights = made.weigh(trajectory._replace(action_mask=first), batch().turns)
  for weight in weights.values():
    assert np.all(np.isfinite(weight))
    assert not np.any(np.asarray(weight)[~first])
