"""What every recipe owes: no silent setting, no leaking gradient.

A new page of experiments/ adds its row to `OTHERS`. The batch is far
off-policy, and is scored, credited, prepared and weighed as in training; a
model is not needed for it.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import pages
from tests import pages_credit_test
from tests import pages_preferences_test
from tests import settings_walk
from tests import thorough
from tests import tiny_training
from tests import tree_batches

Others = settings_walk.Others
_SIZE = Others(host={'group_size': 4})
_SHOWN = Others(host={'group_size': 4, 'demonstrations': 2})
_BAND = {'clip_low': 0.1, 'clip_high': 0.1}
_EXTRA = {'kl_coefficient': 0.3, 'entropy_coefficient': 0.3}
_CRITIC = {
  'discount': 0.5,
  'lambda_': 0.3,
  'value_coefficient': 0.1,
  'value_clip': 0.0,
  'entropy_coefficient': 0.3,
}
OTHERS: dict[str, tuple[Others, ...]] = {
  # Those from which others start.
  'dapo': (
    _SIZE,
    Others(_BAND),
    Others(
      {'limit_tokens': 7, 'buffer_tokens': 2, 'overlong_factor': 0.5},
      {'limit_tokens': 8, 'buffer_tokens': 4},
    ),
  ),
  'gigpo': (
    _SIZE,
    Others({'discount': 0.5, 'step_weight': 0.5, **_BAND, **_EXTRA}),
  ),
  'grpo': (
    _SIZE,
    Others(_BAND | _EXTRA),
    Others(_EXTRA, {'kl_coefficient': 0.1, 'entropy_coefficient': 0.1}),
  ),
  'ppo': (
    _SIZE,
    Others(_BAND | _CRITIC),
    Others({'value_clip': 0.1, 'entropy_coefficient': 0.1}),
  ),
  'reinforce': (_SIZE,),
  'rloo': (_SIZE,),
  'supervised': (),
  'turn_ppo': (_SIZE, Others(_BAND | _CRITIC)),
  # Pages.
  'agent_omit': (
    _SIZE,
    Others({'share': 0.5, 'gated': False, 'partial_weight': 0.5}),
    Others({'kl_coefficient': 0.3} | _BAND),
  ),
  'async_grpo': (
    _SIZE,
    Others({'correction': 'none', 'level': 'sequence'}),
    Others({'low': 0.9, 'high': 1.1} | _BAND),
    Others({'correction': 'decoupled', 'level': 'geometric'}),
    Others({'low': 0.9, 'high': 1.1}, {'correction': 'masked'}),
    Others({'level': 'sequence'} | _BAND, {'correction': 'decoupled'}),
    Others(_BAND, {'correction': 'none'}),
    Others({'correction': 'clip'}, {}),
    Others(_BAND, {'correction': 'clip'}),
  ),
  'chord': (
    _SHOWN,
    Others({'form': 'constant'} | _BAND),
    Others({'peak': 0.5, 'valley': 0.2, 'rise_steps': 9, 'fall_steps': 20}),
    Others({'share': 0.5, 'form': 'phi'}, {'form': 'constant'}),
    Others({'share': 0.5} | _BAND, {'form': 'phi'}),
  ),
  'cispo': (_SIZE, Others({'clip_low': 0.5, 'clip_high': 0.5})),
  'clip_cov': (
    _SIZE,
    Others({'share': 0.5} | _BAND),
    Others({'covariance_low': 0.4, 'covariance_high': 1.14}, {'share': 1.0}),
  ),
  'code_repair': (_SIZE, Others({'kl_coefficient': 0.3} | _BAND)),
  'dppo': (
    _SIZE,
    Others({'divergence': 'binary_kl', 'cap': 1.5}),
    Others({'limit_low': 0.02, 'limit_high': 0.02}),
    Others(
      {'limit_low': 0.02, 'limit_high': 0.02, 'cap': 1.5},
      {'divergence': 'binary_kl'},
    ),
  ),
  'dr_grpo': (_SIZE, Others({'length_tokens': 7} | _BAND)),
  'gmpo': (_SIZE, Others(_BAND)),
  'gspo': (_SIZE, Others(_BAND)),
  'kimi': (_SIZE, Others({'square_coefficient': 0.3})),
  'kl_cov': (_SIZE, Others({'share': 0.2, 'penalty': 0.3})),
  'luffy': (_SHOWN, Others({'shaping': 0.3} | _BAND)),
  'rl_plus': (_SHOWN, Others({'exploration': 0.0})),
  'remax': (Others(host={'group_size': 4, 'greedy_members': 2}),),
  'sapo': (
    _SIZE,
    Others({'temperature_positive': 2.0, 'temperature_negative': 2.0}),
  ),
  'search_r1': (
    _SIZE,
    Others({'kl_coefficient': 0.3} | _BAND),
    Others({'observation_weight': 0.5}),
    Others({'observation_weight': 1.0}, {'observation_weight': 0.5}),
  ),
  'segment_ppo': (
    _SIZE,
    Others({'part': 'sequence'} | _BAND),
    Others(_BAND, {'part': 'sequence'}),
  ),
  'spin': (Others({'beta': 0.3}),),
  'torl': (_SIZE, Others(_BAND)),
  'topr': (_SIZE, Others({'threshold': 0.8, 'level': 'token'})),
  'vespo': (
    _SIZE,
    Others({'shape_positive': 1.0, 'rate_positive': 1.0}),
    Others({'shape_negative': 1.0, 'rate_negative': 1.0}),
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


def result(made: recipe_lib.Recipe) -> list[np.ndarray]:
  """What a recipe makes of the batch.

  The scalar stands for what the loss does with credit and weights.
  """
  trajectory, credit = scored(made)
  weights = made.weigh(trajectory, batch().turns)
  scalar = total(made, batch().outputs, trajectory, credit, weights)
  arrays = jax.tree.leaves((scalar, credit, weights))
  return [*map(np.asarray, arrays)]


@pytest.mark.parametrize('name', thorough.some(sorted(OTHERS), 4))
def test_every_setting_makes_a_difference(name):
  walk(name, OTHERS[name])


def walk(name: str, rows: Sequence[Others]) -> None:
  """Walks the settings of a page, on the batch."""
  maker = pages.load(name)

  def find(**settings):
    made = maker(**settings)
    host = settings_walk.decided(made, batch().turns)
    return settings_walk.Found(host, result(made))

  settings_walk.walk(settings_walk.own_settings(maker), rows, find)


def test_the_settings_of_every_recipe_are_walked():
  """Here, or in the files of credit, preferences, trees and probes."""
  from tests import pages_probes_test  # It imports this one.

  elsewhere = {
    *pages_credit_test.OWN,
    *pages_preferences_test.OTHERS,
    *pages_probes_test.OTHERS,
    *tree_batches.PAGES,
    'reward_model',  # In its own file, for it learns nothing of the policy.
  }
  assert OTHERS.keys() | elsewhere == {*pages.names()}


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


@pytest.mark.parametrize('name', thorough.some(sorted(OTHERS), 4, 2))
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
