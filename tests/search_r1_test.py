"""Search-R1: what was observed weighs nothing, or what the page is told."""

import jax
import numpy as np
import pytest

from experiments import pages
from experiments import search_r1
from tests import pages_test


def test_observations_begin_after_the_first_action():
  # Two segments and padding: prompt, actions and what answered them.
  trajectory, *_ = pages_test.batch()
  row = lambda values: np.array([values])
  small = trajectory._replace(
    action_mask=row([0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0]) > 0,
    segment=row([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0]),
    position=row([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0]),
  )
  found = np.asarray(search_r1.observed(small)[0]).astype(int).tolist()
  assert found == [0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0]


def _sizes(weight):
  """The gradient by log-probabilities, of actions and of observations."""
  made = pages.load('search_r1')(observation_weight=weight)
  trajectory, credit = pages_test.scored(made)
  weights = made.weigh(trajectory, pages_test.batch().turns)

  def scalar(outputs):
    return pages_test.total(made, outputs, trajectory, credit, weights)

  gradient = jax.jit(jax.grad(scalar))(pages_test.batch().outputs).logprobs
  seen = np.asarray(search_r1.observed(trajectory))
  own = np.asarray(trajectory.action_mask)
  assert not np.any(np.asarray(gradient)[~(seen | own)])
  size = lambda mask: float(np.abs(np.asarray(gradient)[mask]).sum())
  return size(own), size(seen), np.asarray(weights['policy']), own | seen


def test_the_gradient_of_what_was_observed():
  own, seen, weights, _ = _sizes(0.0)
  assert own > 0 and seen == 0.0  # Exactly.
  assert float(weights.sum()) == pytest.approx(1.0, rel=1e-5)
  own, seen, weights, trained = _sizes(1.0)
  assert own > 0 and seen > 0
  # Without the mask every token of an answer counts the same.
  np.testing.assert_allclose(weights, trained / trained.sum(), rtol=1e-5)


def test_a_weight_is_not_negative():
  with pytest.raises(ValueError, match='observation_weight=-1'):
    pages.load('search_r1')(observation_weight=-1)
