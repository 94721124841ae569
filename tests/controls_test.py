"""Tokens come from the distribution that controls ask for, and say so."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax.models import attention
from agentic_jax.models import chunks
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from tests import small_world

_ASKED = small_world.requests(3, 3)
_TEMPERATURE = 0.8

# One of everything but grammars; small enough to leave a choice.
_ALL = controls_lib.Controls(
  top_k=40,
  top_p=0.9,
  min_p=0.05,
  repetition_penalty=1.4,
  forbidden=(3, 65, 200),
  forced=(70, 71),
  record=True,
)


def _left(logits, seen, controls, temperature, place=99):
  """Plain and in float64: {token: probability} of one row.

  Args:
    logits: [V].
    seen: tokens of the segment so far.
    controls: of `controls.Controls`.
    temperature: above 0.
    place: how many tokens the action has already.
  """
  if place < len(controls.forced):
    return {controls.forced[place]: 1.0}
  scores = {}
  for token, logit in enumerate(np.asarray(logits, np.float64)):
    if token in controls.forbidden:
      continue
    if token in seen and logit > 0:
      logit = logit / controls.repetition_penalty
    elif token in seen:
      logit = logit * controls.repetition_penalty
    scores[token] = logit / temperature
  ranked = sorted(scores, key=lambda token: -scores[token])
  if controls.top_k:
    ranked = ranked[: controls.top_k]
  weight = {t: np.exp(scores[t] - scores[ranked[0]]) for t in ranked}
  total, upto, kept = sum(weight.values()), 0.0, []
  for token in ranked:
    if upto < controls.top_p * total or controls.top_p == 1:
      kept.append(token)
    upto += weight[token]
  kept = [token for token in kept if weight[token] >= controls.min_p]
  total = sum(weight[token] for token in kept)
  return {token: weight[token] / total for token in kept}


_CONFIG = small_world.config(layers=1)


def _find_stop(ids):
  """Where a stop is, found after a block that went on past it."""
  places = [i for i, token in enumerate(ids) if token in small_world.STOP_IDS]
  return places[0] + 1 if places else None


@functools.cache
def _sampler():
  return small_world.make_sampler(
    config=_CONFIG, stop_ids=(), find_stop=_find_stop, controls=_ALL
  )


@functools.cache
def _episodes():
  world = small_world.world()
  return small_world.play(
    world, _ASKED, by=_sampler(), workers=1, temperature=_TEMPERATURE
  )


@functools.cache
def _logits(config):
  model = transformer.Transformer(config)

  @jax.jit
  def apply(params, tokens, context):
    hidden, _ = model.apply({'params': params}, tokens, context)
    return model.apply({'params': params}, hidden, method='logits')

  return apply


def _scores(params, rows, config):
  """Logits [B, T, V] for the token after each of rows [B, T]."""
  place = np.tile(np.arange(rows.shape[1]), (len(rows), 1))
  context = attention.Packed(np.ones_like(rows), place)
  return np.asarray(_logits(config)(params, rows, context))


@pytest.mark.parametrize(
  'settings',
  [
    {'top_k': 1},
    {'top_k': 7},
    {'top_k': 500},
    {'top_p': 0.01},
    {'top_p': 0.5},
    {'top_p': 0.999},
    {'min_p': 0.1},
    {'min_p': 1.0},
    {'top_k': 20, 'top_p': 0.8, 'min_p': 0.02},
  ],
)
def test_sets_are_those_of_sorting(settings):
  rng = np.random.default_rng(0)
  scaled = rng.normal(size=(50, 300)).astype(np.float32) * 3
  scaled[:25] += 100
  scaled[rng.random((50, 300)) < 0.2] = -np.inf
  found = jax.jit(functools.partial(controls_lib.likely, **settings))(scaled)
  for row, kept in zip(scaled, np.asarray(found), strict=True):
    out = tuple(np.flatnonzero(np.isinf(row)))
    wanted = controls_lib.Controls(forbidden=out, **settings)
    assert set(np.flatnonzero(kept)) == set(_left(row, (), wanted, 1.0))


def test_tokens_as_likely_as_the_last_one_are_left():
  scaled = np.array([[2.0, 1.0, 0.0, 1.0, -1.0, 0.0]], np.float32)
  left = lambda **settings: np.flatnonzero(
    controls_lib.likely(scaled, **settings)[0]
  ).tolist()
  assert left(top_k=1) == [0]
  assert left(top_k=2) == left(top_k=3) == [0, 1, 3]
  assert left(top_k=4) == [0, 1, 2, 3, 5]
  # e^2 of e^2 + 2 e + 2 + e^-1 = 15.19 is 0.486 of the whole.
  assert left(top_p=0.48) == [0] and left(top_p=0.49) == [0, 1, 3]
  # e^-1 = 0.368 and e^-2 = 0.135 times as likely.
  assert left(min_p=0.37) == [0] and left(min_p=0.36) == [0, 1, 3]


def test_penalised_logits_by_hand():
  logits = np.array([[3.0, -2.0, 0.0, 4.0]], np.float32)
  seen = np.array([[True, True, True, False]])
  np.testing.assert_allclose(
    controls_lib.penalise(logits, seen, 2.0), [[1.5, -4.0, 0.0, 4.0]]
  )


@pytest.mark.parametrize('size', [1, 8, 13, 300])
def test_sets_as_bits(size):
  rng = np.random.default_rng(size)
  sets = rng.random((3, 5, size)) < 0.5
  bits = controls_lib.pack(jnp.asarray(sets))
  np.testing.assert_array_equal(
    bits, np.packbits(sets, axis=-1, bitorder='little')
  )
  np.testing.assert_array_equal(chunks.unpack(bits, size), sets)


def _surprise(counts, probabilities):
  """How many standard deviations a chi-square statistic is from its mean."""
  counts, expected = np.asarray(counts), np.sum(counts) * probabilities
  assert not np.any(counts[expected == 0])
  rare = expected < 5
  join = lambda x: np.append(x[~rare], np.sum(x[rare]))
  counts, expected = join(counts), join(expected)
  there = expected > 0
  statistic = np.sum((counts - expected)[there] ** 2 / expected[there])
  freedom = max(np.sum(there) - 1, 1)
  return (statistic - freedom) / np.sqrt(2 * freedom)


def test_short_sequences_follow_the_reference():
  """Two tokens of a vocabulary of 16, against all their probabilities."""
  controls = controls_lib.Controls(
    top_k=12, top_p=0.9, min_p=0.1, repetition_penalty=1.6, forbidden=(2, 11)
  )
  config = sizes.load('toy', 16, layers=1)
  params = dict(small_world.params(config))
  params['embedding'] = params['embedding'] * 2
  shape = small_world.SHAPE._replace(slots=64, capacity=32, prefill_rows=32)
  sampler = sampler_lib.Sampler(
    config, shape, stop_ids=(), seed=0, controls=controls
  )
  sampler.load(params, 0)
  counts, prompt = np.zeros((16, 16), int), [3, 5, 7]
  asked = dict(turn=0, temperature=_TEMPERATURE, limit_tokens=2)
  for draw in range(40):
    for slot in range(64):
      sampler.open(slot, prompt, draw=draw, member=slot, **asked)
    for generated in sampler.tick():
      counts[tuple(generated.tokens)] += 1
  assert counts.sum() == 40 * 64
  rows = np.array([prompt + [token] for token in range(16)], np.int32)
  scores = _scores(params, rows, config)
  joint, plain = np.zeros((16, 16)), np.zeros((16, 16))
  others = controls._replace(repetition_penalty=1.0)
  for into, own in ((joint, controls), (plain, others)):
    first = _left(scores[0, 2], prompt, own, _TEMPERATURE)
    for token, p in first.items():
      seen = [*prompt, token]
      after = _left(scores[token, 3], seen, own, _TEMPERATURE)
      for other, q in after.items():
        into[token, other] = p * q
  assert _surprise(counts.ravel(), joint.ravel()) < 4
  assert abs(joint - plain).sum() > 0.05
  assert _surprise(counts.ravel(), np.maximum(plain, 1e-9).ravel()) > 6


def test_recorded_logprobs_are_those_of_what_was_left():
  several = 0
  for episode in _episodes():
    (segment,) = episode.segments
    row = np.zeros((1, 128), np.int32)
    row[0, : len(segment.tokens)] = segment.tokens
    scores = _scores(small_world.params(_CONFIG), row, _CONFIG)[0]
    kept = np.unpackbits(segment.kept, axis=-1, bitorder='little')
    place = 0
    for t, sampled in enumerate(segment.action_mask):
      if not sampled:
        place = 0
        assert np.all(kept[t])
        continue
      left = _left(scores[t - 1], segment.tokens[:t], _ALL, _TEMPERATURE, place)
      said = np.log(left[segment.tokens[t]])
      np.testing.assert_allclose(segment.sampler_logprobs[t], said, atol=1e-5)
      assert set(np.flatnonzero(kept[t])) == set(left)
      several += len(left) > 1
      place += 1
  assert several > 100


def test_actions_begin_as_forced():
  for episode in _episodes():
    for said in small_world.said(episode):
      assert said[:2] == [70, 71][: len(said)] and len(said) > 2
      assert not {3, 65, 200} & set(said)


@pytest.mark.parametrize('seed', [0, 1])
def test_order_workers_and_blocks_change_no_bit(seed, monkeypatch):
  order = random.Random(seed).sample(range(len(_ASKED)), len(_ASKED))
  wanted = [_episodes()[i] for i in order]
  sampler, rng = _sampler(), random.Random(seed)
  tick = sampler.tick
  monkeypatch.setattr(
    sampler, 'tick', lambda busy: tick(busy=rng.random() < 0.5)
  )
  slow = small_world.Wander(delay_seconds=0.01)
  found = small_world.play(
    small_world.world(slow),
    [_ASKED[i] for i in order],
    by=sampler,
    workers=1 + 7 * seed,
    temperature=_TEMPERATURE,
  )
  small_world.assert_same(found, wanted)


def test_greedy_takes_the_likeliest_of_what_is_left():
  played = small_world.play(
    small_world.world(), _ASKED[:2], by=_sampler(), temperature=0.0
  )
  (segment,) = played[0].segments
  assert segment.kept is None
  row = np.zeros((1, 128), np.int32)
  row[0, : len(segment.tokens)] = segment.tokens
  scores = _scores(small_world.params(_CONFIG), row, _CONFIG)[0]
  place = 0
  for t, sampled in enumerate(segment.action_mask):
    if sampled:
      left = _left(scores[t - 1], segment.tokens[:t], _ALL, 1.0, place)
      assert segment.tokens[t] == max(left, key=lambda x: left[x])
      assert segment.sampler_logprobs[t] == 0
    place = place + 1 if sampled else 0


def test_nothing_compiles_again():
  _episodes()
  with metrics.CompileCounter() as compilations:
    compilations.mark()
    for step in range(4):
      small_world.play(
        small_world.world(turns=1 + step, action_tokens=4 + step),
        _ASKED[: 3 + step],
        by=_sampler(),
        temperature=(0.0, 0.7, 1.0, 1.3)[step],
      )
    assert compilations.since_mark == []


def test_transfers_are_explicit():
  _episodes()
  with jax.transfer_guard('disallow'):
    found = small_world.play(
      small_world.world(), _ASKED, by=_sampler(), temperature=_TEMPERATURE
    )
  small_world.assert_same(found, _episodes())


def test_controls_that_are_off_compile_nothing():
  words = small_world.TOKENIZER
  resolve = functools.partial(controls_lib.resolve, words=words, record=True)
  assert resolve(recipe_lib.Sampling(0.3)) is None
  assert resolve(recipe_lib.Sampling(top_k=words.vocab_size)) is None
  shape, config = small_world.SHAPE, small_world.config()
  text = lambda controls: str(
    jax.make_jaxpr(
      functools.partial(programs.decode, config, shape, (4,), controls)
    )(
      jax.eval_shape(
        functools.partial(transformer.decode_layout, config),
        small_world.params(),
      ),
      jax.eval_shape(functools.partial(programs.empty_caches, config, shape)),
      jax.random.key(0),
      jnp.zeros(8 * shape.slots + 2, jnp.int32),
    )
  )
  plain = text(None)
  assert 'u8[' not in plain
  assert 'u8[' in text(controls_lib.Controls(top_k=4, record=True))


def test_texts_become_ids():
  words = small_world.TOKENIZER
  found = controls_lib.resolve(
    recipe_lib.Sampling(forbidden=('<think>', 'a'), forced='<tool>x'), words
  )
  assert found.forbidden == (97, words.special('<think>'))
  assert found.forced == (words.special('<tool>'), 120)
  with pytest.raises(ValueError, match="'ab' is 2 tokens .*single tokens"):
    controls_lib.resolve(recipe_lib.Sampling(forbidden=('ab',)), words)
  with pytest.raises(ValueError, match="of which 'x' is forbidden; leave"):
    controls_lib.resolve(
      recipe_lib.Sampling(forbidden=('x',), forced='<tool>x'), words
    )


@pytest.mark.parametrize(
  ('settings', 'match'),
  [
    ({'temperature': -1.0}, 'temperature=-1.0 .* greedy, or more'),
    ({'top_k': -1}, 'top_k=-1 .* 1 or more'),
    ({'top_p': 0.0}, 'top_p=0.0 .* above 0'),
    ({'top_p': 1.1}, 'top_p=1.1'),
    ({'min_p': 2.0}, 'min_p=2.0'),
    ({'repetition_penalty': 0.0}, 'repetition_penalty=0.0 .* such as 1.2'),
  ],
)
def test_settings_out_of_range_are_refused(settings, match):
  with pytest.raises(ValueError, match=match):
    recipe_lib.check_sampling(recipe_lib.Sampling(**settings))
