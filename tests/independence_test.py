"""Each recipe's gradient is one, however its batch is cut up and spread.

One batch, far off-policy, goes through a recipe's score, credit, prepare, weigh
and loss in one microbatch, in several, and over eight devices; `eight_devices`
runs the checks. The policy is a table of pairs of tokens, which compiles in no
time; `multi_device_test` takes the transformer through the loop.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import heads
from agentic_jax.train import step as step_lib
from experiments import pages
from tests import eight_devices
from tests import pages_test
from tests import thorough
from tests import tiny_training
from tests import tree_batches

# The same page with other losses.
FORMS = {
  'ppo as two_hot': {'value_form': 'two_hot', 'value_clip': 0.0},
  'turn_ppo as hl_gauss': {'value_form': 'hl_gauss', 'value_clip': 0.0},
  'hiper as quantile': {'value_form': 'quantile', 'value_clip': 0.0},
  'reward_model as outcome': {'form': 'outcome'},
  'reward_model as process': {'form': 'process'},
}
NAMES = sorted(pages.names())
# What a recipe is made with, where the batch wants it: groups of three.
WITH: dict[str, dict[str, Any]] = {
  'dapo': {'limit_tokens': 8, 'buffer_tokens': 4},
  'gdpo': {'group_size': 3},
  'pass_at_k': {'group_size': 3, 'k': 2},
  'ranking': {'group_size': 3},
  'sppo': {'group_size': 3, 'eta': 10.0},
  'grpo': {'kl_coefficient': 0.1, 'entropy_coefficient': 0.01},
} | FORMS
SHAPE = batching.Shape(
  rows=32,
  row_tokens=20,
  microbatch_rows=8,
  episodes=25,
  turns=2,
  action_tokens=12,
)
_WORDS, _WIDTH = 24, 6
_EVERY = 36  # Recipe, but for `make thorough`.
# To compile in little time what runs once.
_QUICK = (
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
)


def test_every_recipe_on_microbatches_and_devices():
  forms = [*FORMS] if thorough.ASKED else [*FORMS][::2]
  number = len(NAMES if thorough.ASKED else NAMES[::_EVERY]) + len(forms)
  assert eight_devices.run(__file__, *_QUICK) == number + 2


def _scores(params, trajectory):
  """Hidden states and scores of a policy that looks at the token before."""
  before = jnp.pad(trajectory.tokens, ((0, 0), (1, 0)))[:, :-1] % _WORDS
  hidden = jnp.tanh(jnp.asarray(params['table'])[before])
  return hidden, hidden @ params['head'] / trajectory.temperature[..., None]


def _apply(
  asked, params, trajectory, vocabulary=None, teacher=None
) -> types.Outputs:
  """What that policy says, with the heads that are asked for."""
  hidden, scores = _scores(params, trajectory)
  read = None
  if vocabulary is not None:
    other = _scores(teacher, trajectory)[1]
    read = _read(vocabulary, scores, other, trajectory)
  logprobs = jax.nn.log_softmax(scores)
  own = trajectory.tokens[..., None] % _WORDS
  chosen = jnp.take_along_axis(logprobs, own, axis=-1)[..., 0]
  value = asked.value or types.ValueHead()
  parts = jnp.einsum('btd,dhk->bthk', hidden, params['value'])
  parts = heads.of_role(value, parts, trajectory.role)
  return types.Outputs(
    jnp.where(trajectory.position > 0, chosen, 0.0),
    -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1),
    heads.value_of(value, parts),
    vocabulary=read,
    value_parts=parts if value.parts > 1 else None,
    rewards=hidden @ params['reward'] if asked.reward else None,
    step_logits=hidden @ params['step'] if asked.step_classes else None,
  )


def _read(vocabulary, scores, other, trajectory):
  """What a recipe reads off the scores, all tokens in one chunk."""
  shape = trajectory.tokens.shape
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  chunk = types.Chunk(
    flat(scores),
    flat(other),
    flat(trajectory.tokens) % _WORDS,
    flat(trajectory.action_mask),
    jnp.arange(trajectory.tokens.size),
  )
  return {k: v.reshape(shape) for k, v in vocabulary(chunk).items()}


def _params(seed: int, asked: types.Heads):
  value = asked.value or types.ValueHead()
  rng = np.random.default_rng(seed)
  draw = lambda *size: rng.normal(scale=0.6, size=size).astype(np.float32)
  return {
    'table': draw(_WORDS, _WIDTH),
    'head': draw(_WIDTH, _WORDS),
    'value': draw(_WIDTH, value.number, value.parts),
    'reward': draw(_WIDTH),
    'step': draw(_WIDTH, asked.step_classes),
  }


@functools.cache
def _batch():
  """Ragged groups of three, with rewards of all components."""
  rng = np.random.default_rng(0)
  episodes = [
    tree_batches.numbered(
      e._replace(baseline={'final': 0.4 * (e.draw % 3)}),
      [i % 3 // 2, 2 + i % 3],
      [0.3 * (i % 5), 0.5],
    )
    for i, e in enumerate(tiny_training.episodes(1, groups=8, members=3))
  ]
  episodes[4] = episodes[4]._replace(failure='hung')
  trajectory, turns, used = batching.stack(episodes, SHAPE)
  assert used == 4
  size = trajectory.tokens.shape
  more = rng.uniform(-0.5, 0.5, turns.rewards.shape).astype(np.float32)
  # Every other episode fails its task.
  more[..., types.REWARDS.index('final')] = 0
  turns.rewards[1::2] *= 0.1
  sampled = -np.log(_WORDS) + rng.normal(scale=0.4, size=size)
  trajectory = trajectory._replace(
    sampler_logprobs=sampled.astype(np.float32) * trajectory.action_mask
  )
  rewards = turns.rewards + np.where(turns.mask[..., None], more, 0)
  return trajectory, turns._replace(rewards=rewards)


def _prepared(recipe, reference):
  """Scored rows, their credit and weights; scores come by microbatches."""
  trajectory, turns = _batch()
  if recipe.demonstrations:
    trajectory = pages_test.mixed(trajectory)
  # What the table of tokens does not look at; V-DPO wants to blank them.
  images = np.full((SHAPE.rows, 1, 2, 2, 3), 7, np.uint8)
  trajectory = trajectory._replace(images=images)
  if recipe.probe and 'teacher_logprobs' in recipe.probe.fills:
    said = np.roll(trajectory.sampler_logprobs, 3, axis=0)
    trajectory = trajectory._replace(teacher_logprobs=said)
  apply = functools.partial(_apply, recipe.heads)
  begin = _hidden(recipe, _params(2, recipe.heads))
  networks = recipe_lib.Networks(
    begin, reference if recipe.uses_reference else None
  )
  whole = recipe.score(apply, networks, trajectory, turns)
  if whole is not trajectory:
    parts = [
      recipe.score(apply, networks, _rows(trajectory, at, 8), turns)
      for at in range(0, SHAPE.rows, 8)
    ]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      joined,
      whole,
    )
  credit = recipe.credit(whole, turns)
  nothing = recipe_lib.prepare_nothing, recipe_lib.carry_nothing
  if (recipe.prepare, recipe.carry) != nothing:
    outputs = apply(begin, whole)
    credit = recipe.prepare(outputs, whole, credit)
    credit, _ = recipe.carry(outputs, whole, credit, recipe.carried)
  return jax.tree.map(np.asarray, (whole, credit, recipe.weigh(whole, turns)))


def _hidden(recipe, params):
  """Whoever looks at values without saying so finds nothing."""
  if recipe.heads.value:
    return params
  return {**params, 'value': np.full_like(params['value'], np.nan)}


def _rows(tree, start, rows):
  return jax.tree.map(lambda x: x[start : start + rows], tree)


def _gradients(recipe):
  """In one microbatch, in four, and in two over eight devices."""
  apply = functools.partial(_apply, recipe.heads)
  batch = _prepared(recipe, _params(3, recipe.heads))
  params = _hidden(recipe, _params(1, recipe.heads))
  mesh = sharding.make_mesh('data:2,fsdp:4')

  def step(params, *part):
    teacher = _params(3, recipe.heads) if recipe.vocabulary else None
    return step_lib.gradients(recipe, apply, params, *part, teacher)[0]

  def total(step, rows, place=lambda part: part):
    found = [
      step(params, *place(_rows(batch, at, rows)))
      for at in range(0, SHAPE.rows, rows)
    ]
    return jax.tree.map(lambda *x: np.sum(x, axis=0), *found)

  spread = functools.partial(jax.device_put, device=sharding.rows(mesh))
  whole = sharding.replicated(mesh)
  return (
    total(step, SHAPE.rows),
    total(step, 8),
    total(jax.jit(step, out_shardings=whole), 16, spread),
  )


def _norm(tree) -> float:
  return float(
    np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))
  )


def _gaps(recipe) -> list[float]:
  """How far the other gradients are from the first, relative to its norm."""
  first, *others = _gradients(recipe)
  if not recipe.heads.value:
    assert not np.any(first.pop('value'))
    assert not any(np.any(other.pop('value')) for other in others)
  norm = _norm(first)
  assert np.isfinite(norm) and norm > 1e-3, 'the batch teaches nothing'
  return [
    _norm(jax.tree.map(np.subtract, other, first)) / norm for other in others
  ]


@pytest.mark.parametrize(
  'name', [*thorough.some(NAMES, _EVERY), *thorough.some(FORMS, 2)]
)
def check_a_gradient_is_one(name):
  assert jax.device_count() == 8
  made = pages.load(name.partition(' as ')[0])(**WITH.get(name, {}))
  gaps = _gaps(made)
  assert max(gaps) < 1e-6


def check_a_loss_that_is_cut_up_is_noticed():
  """The check above does not pass in vain."""
  base = recipe_lib.grpo()

  def loss(outputs, trajectory, credit):
    found = base.loss(outputs, trajectory, credit)['policy']
    return {'policy': found * jnp.mean(jnp.abs(credit.advantages))}

  gaps = _gaps(dataclasses.replace(base, loss=loss))
  assert min(gaps) > 1e-3


def check_the_rows_are_split():
  """Each of eight devices has two of sixteen rows inside the step."""
  seen = {}
  base = recipe_lib.grpo()

  def loss(outputs, trajectory, credit):
    jax.debug.inspect_array_sharding(
      outputs.logprobs,
      callback=lambda found: seen.update(
        {outputs.logprobs.shape: found.shard_shape(outputs.logprobs.shape)}
      ),
    )
    return base.loss(outputs, trajectory, credit)

  _gradients(dataclasses.replace(base, loss=loss))
  assert seen[16, 20] == (2, 20)
