"""Distillation: gradients in closed form, masks, extremes, truncation."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import distillation

_SHAPE, _VOCABULARY = (2, 5), 7
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=8, deadline=None)
_NAN = np.float32(np.nan)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _logits(rng, scale=1.5):
  shape = (2, *_SHAPE, _VOCABULARY)
  student, teacher = scale * rng.normal(size=shape).astype(np.float32)
  return student, teacher, rng.random(_SHAPE) < 0.7


def _kl(p, q):
  return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def _plain_mixture(student, teacher, beta):
  mixture = jnp.log(beta * jnp.exp(teacher) + (1 - beta) * jnp.exp(student))
  return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


_DIVERGENCES = {
  'reverse': (distillation.reverse_kl, _kl),
  'forward': (distillation.forward_kl, lambda s, t: _kl(t, s)),
  'half': (
    distillation.jensen_shannon,
    lambda s, t: _plain_mixture(s, t, 0.5),
  ),
  'tenth': (
    functools.partial(distillation.jensen_shannon, beta=0.1),
    lambda s, t: _plain_mixture(s, t, 0.1),
  ),
}


@functools.cache
def _compiled(name, plain):
  """The divergences; their gradient with some weight on each token."""

  def total(student, teacher, mask, weights):
    if plain:
      both = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
      out = jnp.where(mask, _DIVERGENCES[name][1](*both), 0)
    else:
      out = _DIVERGENCES[name][0](student, teacher, mask)
    return jnp.sum(weights * out), out

  return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize('name', _DIVERGENCES)
@_few
@_given_rng
def test_divergences_agree_with_the_plain_formula(name, rng):
  student, teacher, mask = _logits(rng)
  weights = rng.normal(size=_SHAPE).astype(np.float32)
  # Log-probabilities are logits too.
  teacher = np.asarray(jax.nn.log_softmax(teacher))
  (_, want), (gradient, _) = _compiled(name, True)(
    student, teacher, mask, weights
  )
  bad = [np.where(mask[..., None], x, _NAN) for x in (student, teacher)]
  (_, out), (found, constant) = _compiled(name, False)(*bad, mask, weights)
  _close(out, want)
  _close(found, gradient)
  assert np.all(np.asarray(out) >= -1e-6)
  assert not np.any(np.asarray(out)[~mask])
  assert not np.any(np.asarray(found)[~mask])
  assert not np.any(constant)
  # Equal distributions are no distance apart, and stay.
  (_, out), (found, _) = _compiled(name, False)(teacher, teacher, mask, weights)
  _close(out, 0)
  _close(found, 0)


@pytest.mark.parametrize('name', _DIVERGENCES)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_divergences_are_finite_at_extremes(name, dtype):
  far = [[0, 80, -80], [80, 0, 0], [-80, -80, 80], [0, -jnp.inf, -jnp.inf]]
  student, teacher = jnp.array([far, far[::-1]], dtype)
  mask, weights = jnp.ones(4, bool), jnp.ones(4)
  (_, out), (gradient, _) = _compiled(name, False)(
    student, teacher, mask, weights
  )
  assert out.dtype == jnp.float32 and gradient.dtype == dtype
  assert np.all(np.isfinite(out))
  assert np.all(np.isfinite(gradient.astype(np.float32)))


@pytest.mark.parametrize('name', _DIVERGENCES)
def test_nothing_as_large_as_the_logits_is_kept(name):
  student = jnp.ones((2, 3, 1000), jnp.bfloat16)
  mask = jnp.ones((2, 3), bool)
  _, back = jax.vjp(lambda x: _DIVERGENCES[name][0](x, student, mask), student)
  kept = sum(x.nbytes for x in jax.tree.leaves(back))
  assert kept <= 2 * student.nbytes + 1000


@_few
@_given_rng
def test_the_family_between_the_two_divergences(rng):
  student, teacher, mask = _logits(rng)
  family = functools.partial(distillation.jensen_shannon, student, teacher)
  np.testing.assert_array_equal(
    family(mask, beta=0), distillation.forward_kl(student, teacher, mask)
  )
  np.testing.assert_array_equal(
    family(mask, beta=1.0), distillation.reverse_kl(student, teacher, mask)
  )
  half = family(mask)
  _close(half, distillation.jensen_shannon(teacher, student, mask))
  assert np.all(np.asarray(half) <= np.log(2))
  # Near its ends it is close to a multiple of the divergence, where no token
  # is a thousand times likelier to the one than to the other.
  both = student / 5, teacher / 5
  near = distillation.jensen_shannon(*both, mask, beta=1e-2) / 1e-2
  _close(near, distillation.forward_kl(*both, mask), 0.05)


def test_doubles_stay_doubles():
  with jax.enable_x64(True):
    x, y = jnp.array([[[0.1, 0.9, -2.0]], [[0.3, -1.0, 0.4]]])
    mask = jnp.ones(1, bool)
    for function, plain in _DIVERGENCES.values():
      out = function(x, y, mask)
      assert out.dtype == np.float64
      logs = jax.nn.log_softmax(x), jax.nn.log_softmax(y)
      np.testing.assert_allclose(out, plain(*logs), rtol=1e-12)


def test_on_policy_advantages_are_the_gradient_of_the_reverse_divergence():
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 1, 4)).astype(np.float32)
  mask = jnp.ones(1, bool)
  exact = jax.grad(lambda x: distillation.reverse_kl(x, teacher, mask)[0])(
    student
  )

  def expected(logits):
    # A row for each token that may be sampled.
    logprobs = jax.nn.log_softmax(logits).T
    advantages = distillation.teacher_advantages(
      logprobs, jax.nn.log_softmax(teacher).T, jnp.ones(logprobs.shape, bool)
    )
    sampled = jax.lax.stop_gradient(jnp.exp(logprobs))
    return -jnp.sum(sampled * advantages * logprobs)

  _close(jax.grad(expected)(student), exact)


@_few
@_given_rng
def test_teacher_advantages_ignore_what_is_masked(rng):
  logprobs, teacher = rng.normal(size=(2, *_SHAPE)).astype(np.float32)
  mask = rng.random(_SHAPE) < 0.6
  bad = [np.where(mask, x, _NAN) for x in (logprobs, teacher)]
  out = distillation.teacher_advantages(*bad, mask)
  _close(out, np.where(mask, teacher - logprobs, 0))
  for i in range(2):
    gradient = jax.grad(
      lambda *x: jnp.sum(distillation.teacher_advantages(*x, mask)), argnums=i
    )(*bad)
    assert not np.any(gradient)


@_few
@_given_rng
def test_truncated_divergences_agree_with_a_loop(rng):
  student, teacher, mask = _logits(rng)
  top = distillation.top_tokens(teacher, count=3)
  own = distillation.token_logprobs(student, top.tokens)
  whole = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
  bad = [np.where(mask[..., None], x, _NAN) for x in (own, top.logprobs)]
  forward = distillation.truncated_forward_kl(*bad, mask)
  reverse = distillation.tailed_reverse_kl(*bad, mask)
  for place in np.ndindex(*_SHAPE):
    s, t = (np.asarray(x[place], np.float64) for x in whole)
    order = np.argsort(-t)[:3]
    np.testing.assert_array_equal(top.tokens[place], order)
    if not mask[place]:
      assert forward[place] == reverse[place] == 0
      continue
    _close(forward[place], np.sum(np.exp(t[order]) * (t - s)[order]))
    tails = [1 - np.sum(np.exp(x[order])) for x in (s, t)]
    want = np.sum(np.exp(s[order]) * (s - t)[order])
    want += tails[0] * np.log(tails[0] / tails[1])
    _close(reverse[place], want)


@jax.jit
def _longer_lists(student, teacher, mask):
  """The truncated divergence by length of the list; the whole one."""
  found = []
  for count in range(1, _VOCABULARY + 1):
    tokens = distillation.top_tokens(teacher, count=count).tokens
    both = [distillation.token_logprobs(x, tokens) for x in (student, teacher)]
    found.append(distillation.tailed_reverse_kl(*both, mask))
  return jnp.stack(found), distillation.reverse_kl(student, teacher, mask)


@_few
@_given_rng
def test_a_longer_list_sees_more_of_the_divergence(rng):
  student, teacher, mask = _logits(rng)
  # A small tail is a difference of numbers near 1.
  with jax.enable_x64(True):
    both = (jnp.asarray(x, jnp.float64) for x in (student, teacher))
    found, whole = _longer_lists(*both, mask)
  assert np.all(np.diff(found, axis=0) >= -1e-5)
  assert np.all(np.asarray(found) >= 0)
  _close(found[-1], whole)


@pytest.mark.parametrize(
  'function',
  [distillation.truncated_forward_kl, distillation.tailed_reverse_kl],
)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_truncated_gradients(function, dtype):
  impossible = -jnp.inf
  logprobs = jnp.array(
    [[-80, -1], [0, -80], [impossible, -0.5], [_NAN, _NAN], [-1, -2]], dtype
  )
  teacher = jnp.array(
    [[-1, -80], [-80, 0], [-0.5, impossible], [_NAN, _NAN], [-2, -1]], dtype
  )
  mask = jnp.array([True, True, True, False, True])
  out, (gradient, constant) = jax.value_and_grad(
    lambda *x: jnp.sum(function(*x, mask)), argnums=(0, 1)
  )(logprobs, teacher)
  assert np.isfinite(out) and out.dtype == jnp.float32
  assert np.all(np.isfinite(gradient.astype(np.float32)))
  assert not np.any(gradient[3]) and not np.any(constant)
  if function is distillation.tailed_reverse_kl:
    s, t = np.exp([-1.0, -2]), np.exp([-2.0, -1])
    # d/d log S of S log S/T + s log s/t, with s = 1 - Σ S.
    tail = np.log((1 - s.sum()) / (1 - t.sum()))
    want = s * (np.log(s / t) - tail)
    _close(gradient[4].astype(np.float32), want, 2e-2)


@pytest.mark.parametrize(
  'call, text',
  [
    (
      lambda: distillation.teacher_advantages(
        jnp.ones((1, 2)), None, jnp.ones((1, 2), bool)
      ),
      'teacher_logprobs is None; let the recipe score',
    ),
    (
      lambda: distillation.jensen_shannon(
        jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.ones(1, bool), beta=1.5
      ),
      'got 1.5. Use 0.5, or 0',
    ),
    (
      lambda: distillation.top_tokens(jnp.ones((1, 5)), count=6),
      r'in \[1, 5\]; got 6. Papers keep',
    ),
  ],
)
def test_misuse_is_explained(call, text):
  with pytest.raises(ValueError, match=text):
    call()


def test_contracts_are_asserted():
  x, mask = jnp.ones((2, 3)), jnp.ones(2, bool)
  with pytest.raises(AssertionError):
    distillation.reverse_kl(x, x[:1], mask)
  with pytest.raises(AssertionError):
    distillation.forward_kl(x, x, x[:, 0])
  with pytest.raises(AssertionError):
    distillation.tailed_reverse_kl(x, x, jnp.ones((2, 3), bool))
