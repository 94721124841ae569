"""Search-R1: what was observed weighs nothing, or what the page is told."""

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


@pytest.mark.parametrize('weight', [0.0, 1.0])
def test_what_was_observed_is_trained_on_where_asked_for(weight):
  """That the default has no gradient there at all is in pages_test."""
  made = pages.load('search_r1')(observation_weight=weight)
  trajectory, turns, *_ = pages_test.batch()
  seen = np.asarray(search_r1.observed(trajectory))
  own = np.asarray(trajectory.action_mask)
  assert seen.any() and not (seen & own).any()
  trained = (own | seen) if weight else own
  weights = made.weigh(trajectory, turns)
  assert weights.keys() == {'policy', 'kl'}
  for found in weights.values():
    # Every token of an answer counts the same.
    np.testing.assert_allclose(found, trained / trained.sum(), rtol=1e-5)
  credit = np.asarray(made.credit(trajectory, turns).advantages)
  assert not credit[~trained].any()
  # All tokens of an episode have the credit of the episode.
  for episode in np.unique(trajectory.episode[own]):
    of_it = trained & (trajectory.episode == episode)
    assert np.ptp(credit[of_it]) < 1e-6
  assert bool(np.any(credit[seen])) == bool(weight)


def test_a_weight_is_not_negative():
  with pytest.raises(ValueError, match='observation_weight=-1'):
    pages.load('search_r1')(observation_weight=-1)
