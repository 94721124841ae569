"""The bonus for thoughts left out, worked by hand."""

import numpy as np
import pytest

from agentic_jax import types
from experiments import agent_omit
from experiments import pages
from tests import hand_worked
from tests import tiny_training

_THINK = types.ROLES.index('think')


def _episode(draw, member, rewards, thoughts, length=4):
  """Turns of so many tokens, the first of them of a thought."""
  rng = np.random.default_rng(0)
  parts = [(-1, 1)]
  for turn, _ in enumerate(thoughts):
    parts += [(turn, length), (-1, 1)]
  segment = tiny_training.segment(rng, parts)
  role = np.zeros_like(segment.role)
  for turn, thought in enumerate(thoughts):
    role[np.flatnonzero(segment.turn == turn)[:thought]] = _THINK
  return tiny_training.episode(
    draw, member, rewards, [segment._replace(role=role)]
  )


def _batch():
  return hand_worked.batch(
    [
      _episode(0, 0, [0.0, 1.0], [3, 1]),  # Thinks in both turns.
      _episode(0, 1, [0.0, 1.0], [2, 0]),  # In one of two.
      _episode(0, 2, [0.0, 0.0], [0, 0]),  # Never, and fails.
      _episode(1, 0, [1.0], [0]),  # Nobody here has a thought.
      _episode(1, 1, [0.0], [0]),
    ]
  )


def test_saved_tokens():
  # The mean of the thoughts 3, 1 and 2 of the group is 2.
  found = agent_omit.saved_tokens(*_batch())
  np.testing.assert_allclose(found[:5], [0, 2, 4, 0, 0])


def test_the_bonus_decides_among_successes():
  trajectory, turns = _batch()
  credit = agent_omit.recipe(group_size=3).credit(trajectory, turns)
  found = [
    x[0] for x in hand_worked.per_episode(credit.advantages, turns) if len(x)
  ]
  # 8 tokens used, 2 saved: a fifth; a failure earns no bonus.
  returns = np.array([0.8, 0.8 + 0.2 * 2 / 10, 0.0])
  wanted = (returns - returns.mean()) / returns.std(ddof=1)
  np.testing.assert_allclose(found[:3], wanted, rtol=1e-4)
  # Where nobody thinks it is grpo.
  plain = pages.load('grpo')().credit(trajectory, turns)
  np.testing.assert_allclose(
    found[3:],
    [x[0] for x in hand_worked.per_episode(plain.advantages, turns)[3:5]],
    rtol=1e-4,
  )


@pytest.mark.parametrize('share', [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share):
  with pytest.raises(ValueError, match='share=.*the paper has 0.2'):
    agent_omit.recipe(share=share)
