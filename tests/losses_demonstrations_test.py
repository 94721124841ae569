"""What is kept of episodes, and losses of demonstrated tokens."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses

_EPISODES, _GROUPS = 8, 3
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=15, deadline=None)
_jit_best = jax.jit(losses.best_of_group, static_argnames='num_groups')
_jit_first = jax.jit(
  losses.first_of_group, static_argnames=('num_groups', 'limit')
)
_MASK = jnp.array([[True, True, False]])


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


@_few
@_given_rng
def test_the_first_of_the_best_and_the_first_few(rng):
  scores = rng.integers(0, 3, _EPISODES).astype(np.float32)
  group = rng.integers(-1, _GROUPS, _EPISODES)
  keep = rng.random(_EPISODES) < 0.7
  ignored = (group < 0) | (~keep & (rng.random(_EPISODES) < 0.5))
  poisoned = np.where(ignored, np.float32(np.nan), scores)
  best = _jit_best(poisoned, group, num_groups=_GROUPS, where=keep)
  first = _jit_first(keep, group, num_groups=_GROUPS, limit=2)
  want_best, want_first = np.zeros((2, _EPISODES), bool)
  for number in range(_GROUPS):
    own = np.flatnonzero(keep & (group == number))
    want_first[own[:2]] = True
    if len(own):
      want_best[own[np.argmax(scores[own])]] = True
  np.testing.assert_array_equal(best, want_best)
  np.testing.assert_array_equal(first, want_first)


def test_best_of_all_without_a_choice():
  scores, group = jnp.array([1.0, 3, 3]), jnp.array([0, 0, 0])
  out = losses.best_of_group(scores, group, num_groups=1)
  assert out.tolist() == [False, True, False]


def test_weights_of_imitation():
  advantages = jnp.array([[1.0, 200.0, jnp.nan]])
  out = losses.exponential_weight(advantages, _MASK, temperature=0.5)
  _close(out, [[np.exp(2), 20, 0]])
  logprobs = jnp.log(jnp.array([[0.5, 0.9, jnp.nan]]))
  _close(losses.uncertainty_weight(logprobs, _MASK), [[0.25, 0.09, 0]])


def test_ratios_of_demonstrations():
  logprobs = jnp.log(jnp.array([[0.5, 0.1, jnp.nan]]))
  old = jnp.log(jnp.array([[0.4, 0.2, jnp.nan]]))
  shaped = losses.shaped_probability(logprobs, _MASK)
  _close(shaped, [[0.5 / 0.6, 0.5, 0]])
  mixed = losses.mixture_ratio(logprobs, old, _MASK)
  _close(mixed, [[1 / 1.1, 0.2 / 0.8, 0]])
  gradient = jax.grad(lambda x: jnp.sum(losses.shaped_probability(x, _MASK)))(
    logprobs
  )
  _close(gradient, [[0.05 / 0.36, 0.01 / 0.04, 0]])
  gradient = jax.grad(
    lambda x, y: jnp.sum(losses.mixture_ratio(x, y, _MASK)), argnums=(0, 1)
  )(logprobs, old)
  _close(gradient[0], mixed)
  assert not np.any(gradient[1])


def test_the_pull_on_unlikely_tokens_is_largest_at_the_shaping():
  probability = np.array([[0.02, 0.05, 0.1, 0.3, 0.9]], np.float32)
  mask = jnp.ones((1, 5), bool)
  gradient = jax.grad(lambda x: jnp.sum(losses.shaped_probability(x, mask)))(
    jnp.log(probability)
  )
  assert np.argmax(gradient) == 2


def test_settings_out_of_range_are_refused():
  x, group = jnp.zeros((1, 3)), jnp.zeros(3, jnp.int32)
  with pytest.raises(ValueError, match='got 0. Pass the group size'):
    losses.first_of_group(group == 0, group, num_groups=1, limit=0)
  with pytest.raises(ValueError, match='got 0.0 and 20.0. Use 1 and 20'):
    losses.exponential_weight(x, _MASK, temperature=0.0)
  with pytest.raises(ValueError, match='got 0.0. Use a value such as 0.1'):
    losses.shaped_probability(x, _MASK, shaping=0.0)
