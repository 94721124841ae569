"""Thoughts left out: what they earn, and what leaving them out is credited."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import agent_omit
from experiments import pages
from tests import hand_worked
from tests import tiny_training

# To compile in little time what runs once.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}
_THINK = types.ROLES.index('think')


def _episode(draw, member, rewards, thoughts, length=4, apart=False):
  """Turns of so many tokens, the first of them of a thought.

  In one segment, or each `apart` in one of its own.
  """
  rng = np.random.default_rng(0)
  parts = [[(-1, 1), (turn, length)] for turn, _ in enumerate(thoughts)]
  segments = []
  for part in parts if apart else [sum(parts, [])]:
    segment = tiny_training.segment(rng, part)
    role = np.zeros_like(segment.role)
    for turn, thought in enumerate(thoughts):
      role[np.flatnonzero(segment.turn == turn)[:thought]] = _THINK
    segments.append(segment._replace(role=role))
  return tiny_training.episode(draw, member, rewards, segments)


def _batch(lengths=(4, 4, 4), apart=False):
  """The first three episodes have turns of these lengths, in tokens.

  The second of them may have a segment for each turn.
  """
  return hand_worked.batch(
    [
      _episode(0, 0, [0.0, 1.0], [3, 1], lengths[0]),  # Thinks in both turns.
      _episode(0, 1, [0.0, 1.0], [2, 0], lengths[1], apart),  # In one of two.
      _episode(0, 2, [0.0, 0.0], [0, 0], lengths[2]),  # Never, and fails.
      _episode(1, 0, [1.0], [0]),  # Nobody here has a thought.
      _episode(1, 1, [0.0], [0]),
    ]
  )


def test_what_was_left_out():
  # The mean of the thoughts 3, 1 and 2 of the group is 2.
  found = jax.jit(agent_omit.omissions, compiler_options=_QUICK)(*_batch())
  np.testing.assert_allclose(found.saved_tokens[:5], [0, 2, 4, 0, 0])
  assert np.argwhere(found.turns).tolist() == [[1, 1], [2, 0], [2, 1]]
  np.testing.assert_allclose(found.own_tokens[0], [4, 4, 0])


@functools.cache
def _credit(**settings):
  """Of each episode of the batch, at its tokens."""
  trajectory, turns = _batch()
  made = agent_omit.recipe(group_size=3, **settings)
  credit = jax.jit(made.credit, compiler_options=_QUICK)(trajectory, turns)
  return hand_worked.per_episode(credit.advantages, turns)


def _standardise(scores):
  scores = np.array(scores)
  return (scores - scores.mean()) / scores.std(ddof=1)


def test_the_bonus_decides_among_successes():
  found = [own[0] for own in _credit(partial_weight=0.0) if len(own)]
  # 8 tokens used, 2 saved: a fifth; a failure earns no bonus.
  wanted = _standardise([0.8, 0.8 + 0.2 * 2 / 10, 0.0])
  np.testing.assert_allclose(found[:3], wanted, rtol=1e-4)
  # Where nobody thinks it is grpo, with partial episodes too.
  trajectory, turns = _batch()
  plain = jax.jit(pages.load('grpo')().credit, compiler_options=_QUICK)(
    trajectory, turns
  )
  plain = hand_worked.per_episode(plain.advantages, turns)[3:5]
  for one, other in zip(_credit()[3:5], plain, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_without_its_gate_a_failure_earns_the_bonus():
  found = [own[0] for own in _credit(partial_weight=0.0, gated=False)[:3]]
  # 4 saved of 12.
  wanted = _standardise([0.8, 0.8 + 0.2 * 2 / 10, 0.2 * 4 / 12])
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_partial_episodes_are_paid_by_the_task():
  whole, both = _credit(partial_weight=0.0), _credit()
  # Three of them, whose episodes earned 1, 0 and 0; they are half of their
  # episode's tokens, and one or two of an episode.
  first, second, third = _standardise([1.0, 0.0, 0.0])
  added = [own - plain for own, plain in zip(both, whole, strict=True)]
  np.testing.assert_allclose(added[0], np.zeros(8))
  np.testing.assert_allclose(added[1], [0] * 4 + [2 * first] * 4, rtol=1e-4)
  wanted = [second] * 4 + [third] * 4
  np.testing.assert_allclose(added[2], wanted, rtol=1e-4)


def _objective(logprobs, trajectory, turns):
  """The slopes of the paper's objective, every set of episodes in a loop.

  Of -1/n Σ_i ( mean A_i log π + 1/p_i Σ_j mean A_ij log π ) by each log π.
  """
  found = jax.jit(agent_omit.omissions, compiler_options=_QUICK)(
    trajectory, turns
  )
  returns = np.array(recipe_lib.scores(turns))
  slopes = np.zeros(logprobs.size)
  for group in range(2):
    own = np.flatnonzero(turns.group == group)
    partial = [(i, k) for i in own for k in np.flatnonzero(found.turns[i])]
    saved, used = np.array(found.saved_tokens), (turns.tokens >= 0).sum(axis=1)
    paid = 0.8 * returns + 0.2 * (returns >= 0.5) * saved / (
      used + saved + 1e-9
    )
    for i, advantage in zip(own, _standardise(paid[own])):
      places = turns.tokens[i][turns.tokens[i] >= 0]
      slopes[places] -= advantage / len(places)
    outcomes = [returns[i] for i, _ in partial]
    for (i, k), advantage in zip(partial, _standardise(outcomes or [0, 1])):
      number = sum(j == i for j, _ in partial)
      places = turns.tokens[i][turns.tokens[i] >= 0]
      places = places[trajectory.turn.ravel()[places] == k]
      slopes[places] -= advantage / (number * len(places))
  return slopes.reshape(logprobs.shape) / np.sum(turns.group >= 0)


def test_it_is_the_objective_of_whole_and_partial_episodes():
  trajectory, turns = _batch((4, 3, 6), apart=True)
  made = agent_omit.recipe(group_size=3, kl_coefficient=0.0)
  credit = jax.jit(made.credit, compiler_options=_QUICK)(trajectory, turns)
  weights = made.weigh(trajectory, turns)

  def scalar(logprobs):
    terms = made.loss(types.Outputs(logprobs), trajectory, credit)
    return sum(jnp.sum(weights[k] * terms[k]) for k in terms)

  said = trajectory.sampler_logprobs
  wanted = _objective(said, trajectory, turns)
  assert np.any(wanted)
  np.testing.assert_allclose(
    jax.grad(scalar)(said), wanted, rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize(
  'settings', [{'share': -0.1}, {'share': 1.0}, {'partial_weight': -1.0}]
)
def test_settings_that_make_no_sense_are_refused(settings):
  with pytest.raises(ValueError, match='share=.*the paper has 0.2'):
    agent_omit.recipe(**settings)
