"""What one step says to the next, and the page that needs it: β-DPO."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import checkpoint
from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import pages
from tests import first_recipes
from tests import tiny_training


def _counting():
  """GRPO whose advantages are divided by the number of the step."""
  base = recipe_lib.grpo(group_size=2)

  def carry(outputs, trajectory, credit, carried):
    del outputs, trajectory
    count = carried['steps'] + 1
    scaled = credit.advantages / count
    return credit._replace(advantages=scaled), {'steps': count}

  return dataclasses.replace(base, carry=carry, carried={'steps': 0.0})


class _Watch(tiny_training.Fixed):
  """The same batch at every step, but none at some."""

  def __init__(self, played, skip=()):
    super().__init__(played)
    self._skip = skip

  def batch(self, step, params):
    found = super().batch(step, params)
    return found._replace(episodes=[]) if step in self._skip else found


def _carried(workdir, recipe):
  """What the last checkpoint of a run holds."""
  state = tiny_training.state_of(
    dataclasses.replace(
      recipe, optimizer=tiny_training.remembering(recipe.optimizer)
    )
  )
  arrays = {
    'state': state,
    'reference': state.params if recipe.uses_reference else None,
    'carried': jax.tree.map(jnp.asarray, recipe.carried),
  }
  template = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    arrays,
  )
  restored = checkpoint.Checkpoints(workdir / 'checkpoints').restore_latest(
    template
  )
  return jax.tree.map(np.asarray, restored.arrays['carried'])


def test_the_loop_carries_it_and_checkpoints_keep_it(tmp_path):
  recipe, episodes = _counting(), tiny_training.episodes()
  learn = lambda folder, source, **more: tiny_training.learn(
    recipe, source, tmp_path / folder, **more
  )
  whole = learn('whole', _Watch(episodes), steps=3)
  assert _carried(tmp_path / 'whole', recipe)['steps'] == 3
  assert whole.summary['recompilations_after_warmup'] == 0
  # It goes on from where it stopped.
  learn('parts', _Watch(episodes), steps=2)
  parts = learn('parts', _Watch(episodes), steps=3)
  assert _carried(tmp_path / 'parts', recipe)['steps'] == 3
  tiny_training.assert_close(
    tiny_training.by_name(parts.state.params),
    tiny_training.by_name(whole.state.params),
    0,
  )
  # A batch without episodes says nothing.
  learn('short', _Watch(episodes, skip=(1,)), steps=3)
  assert _carried(tmp_path / 'short', recipe)['steps'] == 2


def test_what_carries_nothing_is_as_it_was():
  for name in first_recipes.NAMES:
    made = pages.load(name)()
    assert made.carry is recipe_lib.carry_nothing and made.carried is None


# β-DPO.


def _pairs(gaps, policy_step=0):
  """Pairs of one token each whose gaps to the reference are these."""
  rng = np.random.default_rng(0)
  episodes = [
    tiny_training.episode(
      draw,
      member,
      [1.0 - member],
      [tiny_training.segment(rng, [(-1, 1), (0, 1)], policy_step=policy_step)],
    )
    for draw in range(len(gaps))
    for member in range(2)
  ]
  shape = batching.Shape(2 * len(gaps), 4, 2, 2 * len(gaps), 1, 2)
  stacked = batching.stack(episodes, shape)
  trajectory, turns = stacked.trajectory, stacked.turns
  logprobs = np.full(trajectory.tokens.shape, -1.0, np.float32)
  reference = logprobs.copy()
  for draw, gap in enumerate(gaps):
    # Half of it by the chosen, half by the rejected.
    for member, sign in enumerate((0.5, -0.5)):
      row, at = divmod(int(turns.tokens[2 * draw + member, 0]), 4)
      reference[row, at] = -1.0 - sign * gap
  trajectory = trajectory._replace(reference_logprobs=reference)
  return types.Outputs(logprobs), trajectory, turns


def _step(made, batch, carried):
  outputs, trajectory, turns = batch
  credit = made.credit(trajectory, turns)
  return made.carry(outputs, trajectory, credit, carried)


def _betas(credit, turns):
  """The β of each pair, seen at its chosen and at its rejected token."""
  flat = np.asarray(credit.factor).ravel()
  found = [flat[row[0]] for row in turns.tokens]
  assert found[::2] == found[1::2]
  return np.array(found[::2])


@pytest.mark.thorough
def test_beta_follows_the_gaps_against_the_running_mean():
  make = pages.load('beta_dpo')
  made = make(group_size=2, fraction=1.0)
  start = jax.tree.map(jnp.asarray, made.carried)
  assert tuple(map(float, start)) == (0.0, 1.0)
  first, second = _pairs([1.0, -0.5, 2.5]), _pairs([2.0, 2.0, 5.0], 1)
  credit, moments = _step(made, first, start)
  # A mean gap of 1, against 0: β = 0.1 (1 + 0.6).
  np.testing.assert_allclose(_betas(credit, first[2]), [0.16] * 3, rtol=1e-5)
  assert float(moments.mean) == pytest.approx(0.1)
  spread = np.std([1.0, -0.5, 2.5])
  assert float(moments.std) == pytest.approx(0.9 + 0.1 * spread)
  # A mean gap of 3, against 0.1.
  credit, after = _step(made, second, moments)
  np.testing.assert_allclose(
    _betas(credit, second[2]), [0.1 * (1 + 0.6 * 2.9)] * 3, rtol=1e-5
  )
  assert float(after.mean) == pytest.approx(0.9 * 0.1 + 0.1 * 3)
  # Gaps far below leave the least β.
  low = _pairs([-30.0] * 3)
  credit, _ = _step(made, low, start)
  np.testing.assert_allclose(_betas(credit, low[2]), [1e-3] * 3, rtol=1e-5)


@pytest.mark.thorough
def test_the_loss_is_that_of_the_drawn_pairs_at_their_beta():
  made = pages.load('beta_dpo')(group_size=2, fraction=0.5)
  gaps = [1.0, -0.5, 2.5, 0.5]
  outputs, trajectory, turns = batch = _pairs(gaps)
  credit, _ = _step(made, batch, preferences.GapMoments(0.0, 1.0))
  betas = _betas(credit, turns)
  drawn = betas > 0
  assert drawn.sum() == 2
  wanted = 0.1 * (1 + 0.6 * np.mean(np.array(gaps)[drawn]))
  np.testing.assert_allclose(betas[drawn], wanted, rtol=1e-5)
  loss = made.loss(outputs, trajectory, credit)['policy']
  weights = made.weigh(trajectory, turns)['policy']
  each = np.log1p(np.exp(-betas * np.array(gaps)))[drawn]
  assert float(jnp.sum(weights * loss)) == pytest.approx(
    each.sum() / 4, rel=1e-5
  )
  # A pair that is not drawn has no gradient.
  slopes = jax.grad(
    lambda x: jnp.sum(
      weights
      * made.loss(outputs._replace(logprobs=x), trajectory, credit)['policy']
    )
  )(outputs.logprobs)
  moved = [bool(np.asarray(slopes).ravel()[row[0]]) for row in turns.tokens]
  assert moved == np.repeat(drawn, 2).tolist()


@pytest.mark.thorough
def test_unusual_gaps_are_drawn_less_often_and_each_step_draws_anew():
  made = pages.load('beta_dpo')(group_size=2, fraction=0.5)
  draws = []
  for step in range(40):
    batch = _pairs([0.0, 0.1, 2.5, -0.1], step)
    credit, _ = _step(made, batch, preferences.GapMoments(0.0, 1.0))
    draws.append(_betas(credit, batch[2]) > 0)
  often = np.sum(draws, axis=0)
  assert often.sum() == 80 and often[2] < 10 < often[[0, 1, 3]].min()
  assert len({tuple(draw) for draw in draws}) > 2


@pytest.mark.parametrize(
  'setting', [dict(beta=0.0), dict(alpha=-1.0), dict(fraction=0.0)]
)
def test_beta_dpo_refuses(setting):
  with pytest.raises(ValueError, match='beta=.*the paper has 0.1, 0.6, 0.8'):
    pages.load('beta_dpo')(**setting)


def test_beta_dpo_trains_in_the_loop(tmp_path):
  made = pages.load('beta_dpo')(group_size=2, learning_rate=1e-2)
  tiny_training.learn(made, tiny_training.episodes(), tmp_path, steps=3)
  mean, std = _carried(tmp_path, made)
  # The policy has left the reference, so gaps are no longer 0.
  assert mean != 0 and std not in (0, 1)
