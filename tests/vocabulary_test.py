"""Outputs over the vocabulary: in chunks, as the whole would give them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import distillation
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import chunks
from agentic_jax.models import prefixes
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from experiments import gkd
from tests import tiny_training

_V = 300


@functools.cache
def _model(seed):
  config = sizes.load('toy', _V, layers=1)
  params = jax.jit(functools.partial(transformer.init, config))
  return config, params(jax.random.key(seed))


def _rows(rows=4, length=21):
  rng = np.random.default_rng(0)
  size = rows, length
  position = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
  full = lambda value, kind: np.full(size, value, kind)
  return types.Trajectory(
    tokens=rng.integers(0, _V, size).astype(np.int32),
    action_mask=(rng.random(size) < 0.6) & (position > 0),
    turn=full(0, np.int32),
    role=full(0, np.int8),
    segment=full(1, np.int32),
    position=position,
    episode=full(0, np.int32),
    policy_step=full(0, np.int32),
    sampler_logprobs=full(-1, np.float32),
    temperature=rng.uniform(0.5, 1.5, size).astype(np.float32),
  )


def _logits(config, params, rows):
  """What is never held: [B, T, V]."""
  after = transformer.hidden(config, params, rows).hidden
  hidden = prefixes.before(rows, after)
  scores = transformer._score(config, params)(hidden)
  return scores / rows.temperature[..., None]


def _divergence(chunk):
  found = distillation.jensen_shannon(
    chunk.logits, chunk.teacher_logits, chunk.mask
  )
  return {'divergence': found, 'where': chunk.index.astype(jnp.float32)}


@pytest.mark.parametrize('tokens', [12, 84])
def test_chunks_say_what_the_whole_says(tokens, monkeypatch):
  monkeypatch.setattr(chunks, 'TOKENS', tokens)
  (config, policy), (_, teacher) = _model(0), _model(1)
  rows = _rows()
  mask = rows.action_mask
  some = np.random.default_rng(1).normal(size=(3, *mask.shape))

  def add(found, entropy, divergence):
    inside = jnp.where(
      rows.position > 0, some[0] * found + some[1] * entropy, 0
    )
    return jnp.sum(inside + some[2] * divergence)

  def whole(params):
    scores = _logits(config, params, rows)
    found, entropy = chunks.said(scores, rows.tokens)
    other = _logits(config, teacher, rows)
    divergence = distillation.jensen_shannon(scores, other, mask)
    return add(found, entropy, divergence), divergence

  def parts(params):
    found = transformer.outputs(
      config, params, rows, vocabulary=_divergence, teacher=teacher
    )
    divergence = found.vocabulary['divergence']
    return add(found.logprobs, found.entropy, divergence), found.vocabulary

  both = [
    jax.jit(jax.value_and_grad(f, has_aux=True))(policy) for f in (whole, parts)
  ]
  ((wanted, divergence), slope), ((got, said), other) = both
  np.testing.assert_allclose(got, wanted, rtol=1e-5)
  np.testing.assert_allclose(said['divergence'], divergence, atol=1e-6)
  index = np.arange(mask.size).reshape(mask.shape)
  np.testing.assert_array_equal(said['where'], np.where(mask, index, 0))
  assert np.any(said['divergence']) and not np.any(said['divergence'][~mask])
  tiny_training.assert_close(
    tiny_training.by_name(other), tiny_training.by_name(slope), 2e-5
  )


def _sizes(jaxpr):
  """The number of entries of every array in a program, however deep."""
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      yield getattr(variable.aval, 'size', 0)
    for inner in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda x: hasattr(x, 'jaxpr') or hasattr(x, 'eqns'),
    ):
      if hasattr(inner, 'jaxpr'):
        yield from _sizes(inner.jaxpr)
      elif hasattr(inner, 'eqns'):
        yield from _sizes(inner)


@pytest.mark.parametrize('vocabulary', [None, _divergence])
def test_the_whole_is_never_held(vocabulary, monkeypatch):
  monkeypatch.setattr(chunks, 'TOKENS', 16)
  (config, policy), (_, teacher) = _model(0), _model(1)
  rows = _rows(4, 40)
  whole = rows.tokens.size * _V

  def total(params):
    found = transformer.outputs(
      config, params, rows, vocabulary=vocabulary, teacher=teacher
    )
    extra = found.vocabulary['divergence'] if found.vocabulary else 0
    return jnp.sum(found.logprobs + found.entropy + extra)

  largest = max(_sizes(jax.make_jaxpr(jax.grad(total))(policy).jaxpr))
  assert 16 * _V <= largest < whole
  held = jax.make_jaxpr(lambda p: jnp.sum(_logits(config, p, rows)))(policy)
  assert max(_sizes(held.jaxpr)) >= whole, 'the measure would not see it'


def test_no_gradient_reaches_the_teacher():
  (config, policy), (_, teacher) = _model(0), _model(1)
  rows = _rows()

  def total(teacher):
    found = transformer.outputs(
      config, policy, rows, vocabulary=_divergence, teacher=teacher
    )
    return jnp.sum(found.vocabulary['divergence'])

  slopes = jax.jit(jax.grad(total))(teacher)
  assert not any(np.any(x) for x in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
  'found, message',
  [
    (lambda chunk: {'sum': jnp.sum(chunk.logits)}, 'one a token'),
    (lambda chunk: {'all': chunk.logits}, 'Reduce over the vocabulary only'),
    (lambda chunk: chunk.logits[:, 0], 'numbers by name'),
  ],
)
def test_results_of_another_shape_are_refused(found, message):
  config, policy = _model(0)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      lambda p: transformer.outputs(config, p, _rows(), vocabulary=found),
      policy,
    )


# In the loop.


@pytest.mark.thorough
def test_gkd_learns_from_another_run(tmp_path):
  """The divergence falls, and is 0 at first where the policy teaches itself."""
  episodes = tiny_training.episodes()
  tiny_training.learn(
    recipe_lib.supervised(learning_rate=0.05),
    episodes, tmp_path / 'teacher', steps=3,
  )  # fmt: skip
  settings = dict(group_size=2, learning_rate=0.03)
  for form in ('jensen_shannon', 'top_reverse'):
    made = gkd.recipe(
      teacher=str(tmp_path / 'teacher'), outcome_weight=0.0, form=form,
      **settings,
    )  # fmt: skip
    assert not made.uses_reference
    tiny_training.learn(made, episodes, tmp_path / form, steps=4)
    records = metrics.read(tmp_path / form)
    found = [r['policy/teacher_divergence'] for r in records]
    assert found[-1] < found[0]
  tiny_training.learn(
    gkd.recipe(**settings), episodes, tmp_path / 'own', steps=2
  )
  found = [
    r['policy/teacher_divergence'] for r in metrics.read(tmp_path / 'own')
  ]
  assert abs(found[0]) < 1e-6 < found[1]


def test_microbatches_add_up_with_a_teacher(tmp_path):
  episodes = tiny_training.episodes()
  made = gkd.recipe(group_size=2)
  other = tiny_training.state_of(made, seed=1).params
  made = dataclasses.replace(made, teacher=other, uses_reference=False)
  slopes = [
    tiny_training.gradient(
      made, episodes, tmp_path / f'{rows}',
      size=tiny_training.shape(microbatch_rows=rows),
    )
    for rows in (4, 16)
  ]  # fmt: skip
  tiny_training.assert_close(*slopes, 1e-6)
  assert any(np.any(x) for x in slopes[0].values())


def test_prepare_sees_the_vocabulary(tmp_path):
  made = gkd.recipe(group_size=2)
  seen = []

  def prepare(outputs, trajectory, credit):
    seen.append(outputs.vocabulary['divergence'].shape)
    return credit

  made = dataclasses.replace(made, prepare=prepare)
  tiny_training.learn(made, tiny_training.episodes(), tmp_path)
  assert seen == [(16, 17)]


def test_a_teacher_of_another_size_is_refused(tmp_path):
  made = gkd.recipe(group_size=2)
  made = dataclasses.replace(made, teacher={'embedding': jnp.zeros((3, 2))})
  with pytest.raises(ValueError, match='not of the size of the policy'):
    tiny_training.learn(made, tiny_training.episodes(), tmp_path)
