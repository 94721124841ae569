"""Speculation changes the speed, and neither the distribution nor its order."""

import dataclasses
import functools
import json
import random

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.sampling import accepting
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import speculation as speculation_lib
from experiments import drafts
from tests import sampling_test
from tests import small_world

_ASKED = small_world.requests(4, 3)
_TEMPERATURE = 0.5
_KINDS = ('prompt', 'layers', 'draft')

_surprise = sampling_test._surprise


def _kind(name, config):
  """One of each; more are looked up than the padding of a slot has room for."""
  if name == 'prompt':
    return speculation_lib.Speculation(9)
  if name == 'layers':
    return speculation_lib.Speculation(2, layers=1)
  small = dataclasses.replace(config, layers=1)
  params = small_world.params(small)
  return speculation_lib.Speculation(3, config=small, params=params)


# Few blocks of cache, which compile sooner; those that are looked up cross two.
_SHAPE = small_world.SHAPE._replace(cache_block=128)


@functools.cache
def _sampler(name, config=None):
  config = config or small_world.config()
  shape = small_world.SHAPE if name == 'prompt' else _SHAPE
  return small_world.make_sampler(
    config=config, shape=shape, speculation=_kind(name, config)
  )


@functools.cache
def _episodes(name, temperature=_TEMPERATURE):
  """What others are held against; with speculation, or '' without."""
  by = _sampler(name) if name else small_world.sampler()
  world = small_world.world()
  return small_world.play(
    world, _ASKED, by=by, workers=1, temperature=temperature
  )


def _tokens(played):
  return [small_world.said(episode) for episode in played]


def test_lookup_is_the_loop():
  rng = np.random.default_rng(0)
  history = rng.integers(0, 3, (60, 40)).astype(np.int32)
  position = rng.integers(0, 40, 60).astype(np.int32)
  position[0], history[1], position[1] = 0, np.arange(40), 30

  def follow(known, number):
    """Plain: the place where most tokens agree with the last, the latest."""
    agree = {}
    for place in range(len(known) - 1):
      n = 0
      while n < accepting.LONGEST and n <= place:
        if known[place - n] != known[-1 - n]:
          break
        n += 1
      agree[place] = n
    if not agree:
      return [known[-1]] * number
    best = max(agree, key=lambda place: (agree[place], place))
    said = list(known)
    for i in range(number):
      said.append(said[best + 1 + i])
    return said[len(known) :]

  found = jax.jit(functools.partial(accepting.lookup, number=6))(
    history, position
  )
  wanted = [
    follow(row[: at + 1].tolist(), 6)
    for row, at in zip(history, position, strict=True)
  ]
  np.testing.assert_array_equal(found, wanted)


def _chain(rng, size, temperature):
  """Logits [V, V] after each token, and their softmax at the temperature."""
  logits = 1.5 * rng.normal(size=(size, size)).astype(np.float32)
  weights = np.exp(logits.astype(np.float64) / temperature)
  return logits, weights / weights.sum(-1, keepdims=True)


def _pass(rng, rule, target, draft, last, temperature):
  """A pass over chains: each of `last` [S] with two tokens drafted."""
  size, rows = len(target[0]), len(last)
  warm = np.full(rows, temperature, np.float32)
  cumulative = np.cumsum(draft[1], axis=-1)
  guesses = []
  before = last
  for _ in range(2):
    u = rng.random((rows, 1))
    before = np.minimum((cumulative[before] < u).sum(-1), size - 1)
    guesses.append(before.astype(np.int32))
  guesses = np.stack(guesses, axis=1)
  conditions = np.concatenate([last[:, None], guesses], axis=1)
  logits = target[0][conditions]
  uniform = rng.random((rows, 3), np.float32)
  if rule == 'match':
    return jax.device_get(_MATCH(logits, guesses, uniform, warm))
  said = draft[0][conditions[:, :-1]]
  doubt = rng.random((rows, 2), np.float32)
  found = _JUDGE(logits, said, guesses, doubt, uniform, warm)
  return jax.device_get(found)


_MATCH, _JUDGE = jax.jit(accepting.match), jax.jit(accepting.judge)


@pytest.mark.parametrize('temperature', [0.6, 1.0, 1.7])
@pytest.mark.parametrize('near', [0.0, 0.8, 1.0])
@pytest.mark.parametrize('rule', ['match', 'judge'])
def test_all_sequences_follow_the_target(rule, near, temperature):
  """Three tokens of four, each a function of the one before."""
  rng, size, rows = np.random.default_rng(1), 4, 30_000
  target = _chain(rng, size, temperature)
  other = _chain(rng, size, temperature)
  logits = near * target[0] + (1 - near) * other[0]
  weights = np.exp(logits.astype(np.float64) / temperature)
  draft = (logits, weights / weights.sum(-1, keepdims=True))
  said = np.zeros((rows, 6), np.int32)
  logprobs = np.zeros((rows, 6))
  have = np.zeros(rows, int)
  kept = []
  while np.any(have < 3):
    last = np.where(have > 0, said[np.arange(rows), np.maximum(have, 1) - 1], 0)
    found = _pass(rng, rule, target, draft, last, temperature)
    count = np.where(have < 3, found.count, 0)
    kept.append(count[have < 3])
    for place in range(3):
      (now,) = np.nonzero(count > place)
      said[now, have[now] + place] = found.tokens[now, place]
      logprobs[now, have[now] + place] = found.logprobs[now, place]
    have += count
  counts = np.zeros((size,) * 3, int)
  np.add.at(counts, tuple(said[:, :3].T), 1)
  one, two, three = target[1][0], target[1], target[1]
  joint = one[:, None, None] * two[:, :, None] * three[None]
  assert _surprise(counts.ravel(), joint.ravel()) < 4
  assert _surprise(counts.transpose(1, 0, 2).ravel(), joint.ravel()) > 6
  before = np.concatenate([np.zeros((rows, 1), int), said[:, :2]], axis=1)
  wanted = np.log(target[1][before, said[:, :3]])
  np.testing.assert_allclose(logprobs[:, :3], wanted, atol=5e-6)
  # What is kept is what min(1, p / q), or p for what is certain, lets through.
  overlap = np.minimum(target[1][0], draft[1][0]).sum()
  if rule == 'match':
    overlap = (target[1][0] * draft[1][0]).sum()
  share = np.mean(kept[0] > 1)
  assert abs(share - overlap) < 0.02
  if rule == 'judge' and near == 1.0:
    assert np.all(kept[0] == 3)


def test_greedy_keeps_what_is_likeliest():
  logits = np.zeros((3, 3, 5), np.float32)
  logits[:, :, 2] = 1.0
  guesses = np.array([[2, 2], [2, 1], [3, 2]], np.int32)
  half, cold = np.full((3, 3), 0.5, np.float32), np.zeros(3, np.float32)
  by_chance = _JUDGE(logits, -logits[:, :2], guesses, half[:, :2], half, cold)
  for found in (by_chance, _MATCH(logits, guesses, half, cold)):
    np.testing.assert_array_equal(found.count, [3, 2, 1])
    for row, count in enumerate(found.count):
      assert np.all(found.tokens[row, :count] == 2)
      assert not np.any(found.logprobs[row, :count])


@pytest.mark.parametrize('name', _KINDS)
def test_greedy_tokens_are_the_plain_ones(name):
  wanted = _tokens(_episodes('', 0.0))
  assert _tokens(_episodes(name, 0.0)) == wanted
  # Whatever is as sure of the past as this one says it again.
  assert _sampler(name).tokens_per_pass > 1.3


def test_looking_up_says_what_would_have_been_said():
  """Token for token, whatever was drafted; only rounding differs."""
  for temperature in (0.2, _TEMPERATURE):
    found = _episodes('prompt', temperature)
    assert _sampler('prompt').tokens_per_pass > 1.02
    for one, other in zip(found, _episodes('', temperature), strict=True):
      assert one.turns == other.turns
      for ours, theirs in zip(one.segments, other.segments, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_allclose(
          ours.sampler_logprobs, theirs.sampler_logprobs, atol=1e-4
        )


@pytest.mark.parametrize('name', _KINDS)
def test_order_changes_no_bit(name, monkeypatch):
  sampler, wanted = _sampler(name), _episodes(name)
  play = functools.partial(
    small_world.play, by=sampler, temperature=_TEMPERATURE
  )
  order = random.Random(0).sample(range(len(_ASKED)), len(_ASKED))
  slow = small_world.world(small_world.Wander(delay_seconds=0.01))
  kept = []
  with metrics.CompileCounter() as compilations:
    compilations.mark()
    found = play(slow, [_ASKED[i] for i in order], workers=8)
    kept.append(sampler.tokens_per_pass)
    small_world.assert_same(found, [wanted[i] for i in order])
    found = play(small_world.world(), [_ASKED[order[0]]])
    small_world.assert_same(found, [wanted[order[0]]])
    rng, tick = random.Random(0), sampler.tick
    erratic = lambda busy: tick(busy=rng.random() < 0.5)
    monkeypatch.setattr(sampler, 'tick', erratic)
    small_world.assert_same(play(small_world.world(), _ASKED), wanted)
    kept.append(sampler.tokens_per_pass)
    assert compilations.since_mark == []
  assert kept[0] == kept[1] > 1


@pytest.mark.parametrize('name', _KINDS)
def test_turns_end_at_stops_and_limits(name):
  stops, ends = set(small_world.STOP_IDS), set()
  for episode in _episodes(name):
    length = len(episode.segments[-1].tokens)
    full = length == small_world.LIMITS.segment_tokens
    *_, last = said = small_world.said(episode)
    for turn in said:
      assert not stops & set(turn[:-1])
      limit = len(turn) == small_world.LIMITS.action_tokens
      assert turn[-1] in stops or limit or (full and turn is last)
      assert len(turn) <= small_world.LIMITS.action_tokens
      ends.add(turn[-1] in stops)
  assert ends == {True, False}


def test_a_slot_is_filled_to_its_end():
  """What is drafted past the capacity is nowhere, and nothing misses it."""
  found = []
  for sampler in (small_world.sampler(), _sampler('prompt')):
    sampler.load(small_world.params(), 0)
    said = []
    for slot, length in enumerate((100, 119)):
      sampler.open(
        slot,
        [slot + 7] * length,
        draw=0,
        member=slot,
        turn=0,
        temperature=0.0,
        limit_tokens=sampler.limit_tokens - length,
      )
    while sampler.num_active:
      said += [(g.slot, g.tokens.tolist()) for g in sampler.tick()]
    found.append(sorted(said))
  assert found[0] == found[1]


def test_a_stop_string_cuts_where_it_ends(monkeypatch):
  """And passes after it count nowhere, however far a block went on."""
  sampler = _sampler('layers')
  find = lambda ids: 5 if len(ids) >= 5 else None
  monkeypatch.setattr(sampler, '_find_stop', find)
  counted, played, tick = [], [], sampler.tick
  for busy in (False, True):
    monkeypatch.setattr(sampler, 'tick', lambda busy, b=busy: tick(busy=b))
    played.append(small_world.play(small_world.world(), _ASKED, by=sampler))
    counted.append((sampler._follower.tokens, sampler._follower.passes))
  small_world.assert_same(*played)
  assert counted[0] == counted[1]
  said = [turn for e in played[0] for turn in small_world.said(e)]
  assert max(map(len, said)) == 5 and counted[0][0] == sum(map(len, said))


@functools.cache
def _rescore(config):
  return jax.jit(functools.partial(transformer.outputs, config))


def _errors(played, config):
  """Recorded less recomputed log-probabilities of action tokens."""
  shape = small_world.batch_shape(4, 3, row_tokens=150)
  trajectory = batching.stack(played, shape).trajectory
  found = _rescore(config)(small_world.params(config), trajectory).logprobs
  gap = np.asarray(found) - trajectory.sampler_logprobs
  return gap[trajectory.action_mask]


def largest_error_in_double_precision() -> float:
  """Over ways to draft; for a process with 64 bits."""
  config = small_world.config(dtype='float64')
  worst = 0.0
  for name in _KINDS:
    played = small_world.play(
      small_world.world(),
      _ASKED,
      by=_sampler(name, config),
      temperature=_TEMPERATURE,
    )
    worst = max(worst, np.max(np.abs(_errors(played, config))))
  return float(worst)


@pytest.mark.parametrize('name', _KINDS)
def test_tokens_score_as_they_were_sampled(name):
  gap = np.abs(_errors(_episodes(name), small_world.config()))
  assert len(gap) > 100
  assert np.mean(gap < 3e-5) >= 0.99 and np.max(gap) < 1e-4


@pytest.mark.thorough
def test_tokens_score_as_they_were_sampled_in_double_precision():
  error = small_world.in_process(
    'speculation_test.largest_error_in_double_precision()', JAX_ENABLE_X64='1'
  )
  assert float(error) < 1e-10


@pytest.mark.thorough
@pytest.mark.parametrize('name', ['layers', 'draft'])
def test_short_sequences_follow_the_model(name):
  """Two tokens of a vocabulary of 16, through caches and all."""
  config = sizes.load('toy', 16)
  params = dict(small_world.params(config))
  params['embedding'] = params['embedding'] * 2
  shape = small_world.SHAPE._replace(slots=64, capacity=32, prefill_rows=32)
  made = small_world.make_sampler(
    config=config,
    shape=shape,
    stop_ids=(),
    speculation=_kind(name, config),
  )
  made.load(params, 0)
  counts, prompt = np.zeros((16, 16), int), [3, 5, 7]
  for draw in range(60):
    for slot in range(64):
      made.open(
        slot,
        prompt,
        draw=draw,
        member=slot,
        turn=0,
        temperature=0.8,
        limit_tokens=2,
      )
    while made.num_active:
      for generated in made.tick():
        counts[tuple(generated.tokens)] += 1
  assert counts.sum() == 60 * 64 and 1 < made.tokens_per_pass < 2
  rows = np.array([prompt + [token] for token in range(16)], np.int32)
  place = np.tile(np.arange(4), (16, 1))
  scores = sampling_test._logits(config)(
    params, rows, attention.Packed(np.ones_like(rows), place)
  )
  softmax = jax.nn.softmax(scores / 0.8, axis=-1)
  joint = np.asarray(softmax[0, 2][:, None] * softmax[:, 3])
  assert _surprise(counts.ravel(), joint.ravel()) < 4
  assert _surprise(counts.T.ravel(), joint.ravel()) > 6


@pytest.mark.thorough
def test_controls_steer_every_place():
  """The same tokens, and the same sets, as without drafts."""
  config = small_world.config(layers=1)
  controls = controls_lib.Controls(
    top_k=6,
    top_p=0.95,
    repetition_penalty=0.6,
    forbidden=(3, 65, 200),
    forced=(70, 71),
    record=True,
  )
  made = functools.partial(
    small_world.make_sampler, config=config, shape=_SHAPE, controls=controls
  )
  drafted = made(speculation=speculation_lib.Speculation(3))
  played = [
    small_world.play(small_world.world(), _ASKED, by=by, temperature=0.4)
    for by in (made(), drafted)
  ]
  assert drafted.tokens_per_pass > 1.2
  for one, other in zip(*played, strict=True):
    for ours, theirs in zip(one.segments, other.segments, strict=True):
      np.testing.assert_array_equal(ours.tokens, theirs.tokens)
      np.testing.assert_array_equal(ours.kept, theirs.kept)
      np.testing.assert_allclose(
        ours.sampler_logprobs, theirs.sampler_logprobs, atol=1e-4
      )


@pytest.mark.thorough
@pytest.mark.parametrize('name', ['prompt', 'layers'])
def test_experts_are_recorded(name):
  config = sizes.load('toy_experts', small_world.TOKENIZER.vocab_size)
  played = small_world.play(
    small_world.world(),
    _ASKED,
    by=_sampler(name, config),
    temperature=_TEMPERATURE,
  )
  for episode in played:
    for segment in episode.segments:
      assert np.all(segment.experts[:-1] >= 0)
  assert np.max(np.abs(_errors(played, config))) < 1e-4


def test_a_run_is_a_draft(tmp_path):
  shape = config_lib.TransformerConfig(
    vocab_size=9,
    width=8,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=4,
    mlp_width=8,
    windows=(4, 0),
    rope=config_lib.Rope(divisors=(1.0, 2.0)),
    lora=config_lib.Lora(rank=2),
    output_heads=types.Heads(reward=True),
  )
  told = {'model': dataclasses.asdict(shape) | {'name': 'mine'}}
  (tmp_path / 'config.json').write_text(json.dumps(told))
  found = drafts.config_of(str(tmp_path))
  assert found == dataclasses.replace(shape, output_heads=types.Heads())
  assert hash(found)
  assert drafts.load('', 10, None) is None and drafts.origin('') == {}
  asked = drafts.load('layers:2,5', 10, None)
  assert asked == speculation_lib.Speculation(5, layers=2)
  with pytest.raises(ValueError, match='draft:nowhere: it is no run directory'):
    drafts.load('draft:nowhere,4', 10, None)


@pytest.mark.parametrize(
  'text, wanted',
  [
    ('prompt:4', speculation_lib.Asked(4)),
    ('layers:2,4', speculation_lib.Asked(4, layers=2)),
    ('draft:a/b,c,7', speculation_lib.Asked(7, path='a/b,c')),
    *(
      (text, None)
      for text in (
        *('prompt', 'prompt:', 'prompt:0', 'prompt:33', 'prompt:2,4', 'x:4'),
        *('layers:4', 'layers:0,4', 'layers:a,4', 'draft:4', 'draft:,4', '4'),
      )
    ),
  ],
)
def test_forms_of_the_flag(text, wanted):
  if wanted is not None:
    assert speculation_lib.parse(text) == wanted
    return
  with pytest.raises(ValueError, match='--speculate=.*none of prompt:K.*1 to'):
    speculation_lib.parse(text)


def test_what_cannot_be_speculated_is_refused():
  config = small_world.config()
  refuse = speculation_lib.refuse
  prompt = speculation_lib.Speculation(4)
  with pytest.raises(ValueError, match='a grammar says on the host.*leave one'):
    refuse(config, controls_lib.Controls(grammar=object()), prompt)
  with pytest.raises(ValueError, match='policy has 2 layers.*take 1 to 1'):
    refuse(config, None, prompt._replace(layers=2))
  other = dataclasses.replace(config, vocab_size=9)
  with pytest.raises(ValueError, match='draft has 9 tokens, the policy 272'):
    refuse(config, None, prompt._replace(config=other))
  eyes = config_lib.VisionConfig(
    image_size=8, patch_size=4, width=8, layers=1, heads=2, mlp_width=8
  )
  sees = dataclasses.replace(config, vision=eyes)
  with pytest.raises(ValueError, match='another model.*images.*layers:N,K'):
    refuse(sees, None, prompt._replace(config=config))
  refuse(sees, None, prompt)
