"""Sampling does not depend on order, and samples what it says it samples."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import metrics
from agentic_jax import rollout
from agentic_jax.models import attention
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.rollout import collecting
from agentic_jax.rollout import patience
from agentic_jax.sampling import drawing
from agentic_jax.sampling import feeding
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from tests import small_world

_ASKED = small_world.requests(5, 3)
_play = small_world.play


@functools.cache
def _episodes(context):
  """What all others are held against: one worker, no delay, in order."""
  world = small_world.world(context=context)
  return _play(world, _ASKED, workers=1)


def _delayed(context='append_all'):
  slow = small_world.Wander(delay_seconds=0.01)
  return small_world.world(slow, context=context)


def order_free() -> bool:
  """Whether delays, workers and order change no bit; for a fresh process."""
  wanted = _episodes('append_all')
  order = random.Random(0).sample(range(len(_ASKED)), len(_ASKED))
  shuffled = [_ASKED[i] for i in order]
  found = _play(_delayed(), shuffled, workers=8)
  small_world.assert_same(found, [wanted[i] for i in order])
  return True


def test_the_world_is_worth_playing():
  for context in ('append_all', 'keep_last'):
    episodes = _episodes(context)
    lengths = {turn.num_tokens for e in episodes for turn in e.turns}
    assert len(lengths) > 5 and max(lengths) == small_world.LIMITS.action_tokens
    assert {len(e.turns) for e in episodes} == {1, 2, 3, 4}
    assert any(e.truncated for e in episodes)
    assert any(e.terminated for e in episodes)
    assert not any(e.failure for e in episodes)
  assert max(len(e.segments) for e in _episodes('append_all')) == 1
  assert max(len(e.segments) for e in _episodes('keep_last')) > 2


@pytest.mark.parametrize('context', ['append_all', 'keep_last'])
@pytest.mark.parametrize('workers', [1, 2, 8])
def test_workers_and_delays_change_no_bit(workers, context):
  found = _play(_delayed(context), _ASKED, workers=workers)
  small_world.assert_same(found, _episodes(context))


class _Few:
  """A sampler of which two slots are used."""

  shape = small_world.SHAPE._replace(slots=2)

  def __init__(self, limit_parked):
    self.limit_parked = limit_parked

  def __getattr__(self, name):
    return getattr(small_world.sampler(), name)


@pytest.mark.parametrize('context', ['append_all', 'keep_last'])
def test_who_is_parked_changes_no_bit(context, monkeypatch):
  rng, away = random.Random(1), [0]
  chance = lambda *_: rng.random() < 0.5
  monkeypatch.setattr(patience, 'worth_parking', chance)
  slow = small_world.Wander(delay_seconds=0.03)
  world = small_world.world(slow, context=context)
  seat = collecting._Loop._seat

  def counted(loop):
    away.append(len(loop._playing) - len(loop._seated))
    seat(loop)

  monkeypatch.setattr(collecting._Loop, '_seat', counted)
  for limit in (3, 0):
    away.clear()
    workers = rollout.Workers(6)
    found = _play(world, _ASKED, by=_Few(limit), workers=workers)
    workers.close()
    small_world.assert_same(found, _episodes(context))
    assert (workers.parked > 2) == (limit > 0)
    # One more while two change places.
    assert max(away) <= limit + bool(limit)


def test_slow_answers_are_parked_while_others_wait():
  slow = small_world.Wander(delay_seconds=0.2)
  workers = rollout.Workers(6)
  found = _play(
    small_world.world(slow), _ASKED[:6], by=_Few(2), workers=workers
  )
  assert workers.parked > 2
  small_world.assert_same(found, _episodes('append_all')[:6])
  # With a slot for everybody there is no reason to.
  workers.parked = 0
  _play(small_world.world(slow), _ASKED[:2], by=_Few(2), workers=workers)
  assert not workers.parked
  workers.close()


@pytest.mark.parametrize('seed', [0, 1])
def test_the_order_of_requests_changes_no_bit(seed):
  wanted = _episodes('append_all')
  order = random.Random(seed).sample(range(len(_ASKED)), len(_ASKED))
  found = _play(_delayed(), [_ASKED[i] for i in order])
  small_world.assert_same(found, [wanted[i] for i in order])
  # Alone, in another slot than before, without a prompt to copy.
  found = _play(small_world.world(), [_ASKED[order[0]]])
  small_world.assert_same(found, [wanted[order[0]]])


def test_order_free_in_optimised_programs():
  """The other tests compile without optimising; what users run must hold."""
  assert (
    small_world.in_process('sampling_test.order_free()', XLA_FLAGS='') == 'True'
  )


def test_where_a_block_ends_changes_no_bit(monkeypatch):
  sampler, rng, ticks = small_world.sampler(), random.Random(0), []
  tick = sampler.tick

  def erratic(*, busy):
    del busy
    ticks.append(rng.random() < 0.5)
    return tick(busy=ticks[-1])

  monkeypatch.setattr(sampler, 'tick', erratic)
  found = _play(small_world.world(), _ASKED)
  small_world.assert_same(found, _episodes('append_all'))
  assert len(set(ticks)) == 2


def test_copied_prompts_are_prefilled_prompts(monkeypatch):
  sampler, fed = small_world.sampler(), []
  store, made = sampler._store, sampler._store.programs

  def counted(name):
    def call(*arguments):
      fed.append(name)
      return getattr(made, name)(*arguments)

    return call

  counting = made._replace(copy=counted('copy'), prefill=counted('prefill'))
  monkeypatch.setattr(store, 'programs', counting)
  _play(small_world.world(), _ASKED)
  shared = fed.count('prefill')
  assert fed.count('copy') >= 5

  fed.clear()
  monkeypatch.setattr(feeding, 'share', lambda slots, waiting: (waiting, []))
  found = _play(small_world.world(), _ASKED)
  small_world.assert_same(found, _episodes('append_all'))
  assert 'copy' not in fed and fed.count('prefill') > shared


def _turns(sampler, opened):
  """The finished turns of slots opened with prompts, by slot."""
  for slot, prompt in opened:
    sampler.open(
      slot,
      prompt,
      draw=len(prompt),
      member=0,
      turn=0,
      temperature=1.0,
      limit_tokens=12,
    )
  found = {}
  while sampler.num_active:
    found |= {g.slot: g for g in sampler.tick()}
  return {
    slot: (g.tokens.tolist(), g.logprobs.tolist()) for slot, g in found.items()
  }


def test_a_slot_with_a_new_prompt_is_no_source_of_its_old_one():
  sampler, old, new = small_world.sampler(), [9] * 20, [8] * 30
  sampler.load(small_world.params(), 0)
  wanted = _turns(sampler, [(0, new), (1, old)])
  sampler.load(small_world.params(), 0)
  _turns(sampler, [(0, old)])
  assert _turns(sampler, [(0, new), (1, old)]) == wanted
  # Nor is any slot once the parameters have changed.
  others = jax.tree.map(lambda x: 1.1 * x, small_world.params())
  sampler.load(others, 0)
  changed = _turns(sampler, [(0, new), (1, old)])
  assert changed != wanted
  sampler.load(small_world.params(), 0)
  assert _turns(sampler, [(2, new), (3, old)])[3] == wanted[1]


def test_the_capacity_changes_no_bit():
  larger = small_world.SHAPE._replace(capacity=192)
  found = _play(
    small_world.world(), _ASKED, by=small_world.make_sampler(shape=larger)
  )
  small_world.assert_same(found, _episodes('append_all'))


@pytest.mark.parametrize('change', ['seed', 'draw', 'member', 'temperature'])
def test_what_should_change_the_episodes_does(change):
  sampler = small_world.sampler()
  asked, temperature = _ASKED[:3], 1.0
  if change == 'seed':
    sampler.seed(4)
  elif change == 'temperature':
    temperature = 0.7
  else:
    asked = [r._replace(**{change: 9 + getattr(r, change)}) for r in asked]
  found = _play(small_world.world(), asked, temperature=temperature)
  sampler.seed(3)
  wanted = _episodes('append_all')[:3]
  # The same numbers at another temperature now and then say the same.
  said = [[small_world.said(e) for e in played] for played in (found, wanted)]
  if change == 'temperature':
    assert said[0] != said[1]
  else:
    assert all(one != other for one, other in zip(*said, strict=True))


def test_every_token_has_a_number_of_its_own():
  parts = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)
  draw, member, turn = parts.astype(np.int32).T
  none = np.zeros_like(draw)
  slots = programs.Slots(none, none, none, none, draw, member, turn, none)
  numbers = programs.uniforms(jax.random.key(0), slots, 5)
  assert len(np.unique(numbers)) == 5 * len(parts)
  # What a block begins with is what the one before would have gone on with.
  moved = slots._replace(position=none + 2)
  later = programs.uniforms(jax.random.key(0), moved, 3)
  np.testing.assert_array_equal(later, numbers[2:])


def test_turns_end_at_stops_and_limits():
  stops = set(small_world.STOP_IDS)
  limit = small_world.LIMITS.action_tokens
  ends = set()
  for episode in _episodes('append_all'):
    length = len(episode.segments[-1].tokens)
    full = length == small_world.LIMITS.segment_tokens
    *_, last = said = small_world.said(episode)
    for turn in said:
      assert not stops & set(turn[:-1])
      cut = len(turn) == limit or (full and turn is last)
      assert turn[-1] in stops or cut
      ends.add(turn[-1] in stops)
      assert len(turn) <= limit
  assert ends == {True, False}


def _find_first(ids):
  """Where the first stop token is, as a search for a string would."""
  places = [i for i, token in enumerate(ids) if token in small_world.STOP_IDS]
  return places[0] + 1 if places else None


def test_a_stop_string_cuts_like_a_stop_token():
  sampler = small_world.make_sampler(stop_ids=(), find_stop=_find_first)
  for context in ('append_all', 'keep_last'):
    world = small_world.world(context=context)
    found = _play(world, _ASKED, by=sampler)
    small_world.assert_same(found, _episodes(context))


def _scores(tokens):
  """Logits of the packed forward function, for the token after each."""
  config, length = small_world.config(), 128
  row = np.zeros((1, length), np.int32)
  row[0, : len(tokens)] = tokens
  context = attention.Packed(np.ones_like(row), np.arange(length)[None])
  return _logits(config)(small_world.params(), row, context)[0, : len(tokens)]


@functools.cache
def _logits(config):
  model = transformer.Transformer(config)

  @jax.jit
  def apply(params, tokens, context):
    hidden, _ = model.apply({'params': params}, tokens, context)
    return model.apply({'params': params}, hidden, method='logits')

  return apply


def test_greedy_takes_the_likeliest():
  played = _play(small_world.world(), _ASKED[:4], temperature=0.0)
  # No chance is left: members differ by what the world's seed does alone.
  assert len({tuple(small_world.said(e)[0]) for e in played[:3]}) == 1
  for episode in played:
    (segment,) = episode.segments
    mask = segment.action_mask
    scores = np.asarray(_scores(segment.tokens))
    np.testing.assert_array_equal(
      segment.tokens[1:][mask[1:]], scores.argmax(-1)[:-1][mask[1:]]
    )
    assert not np.any(segment.sampler_logprobs)
    assert not np.any(segment.temperature[mask])


def _surprise(counts, probabilities):
  """How many standard deviations a chi-square statistic is from its mean."""
  counts, expected = np.asarray(counts), np.sum(counts) * probabilities
  rare = expected < 5
  join = lambda x: np.append(x[~rare], np.sum(x[rare]))
  counts, expected = join(counts), join(expected)
  kept = expected > 0
  statistic = np.sum((counts - expected)[kept] ** 2 / expected[kept])
  freedom = np.sum(kept) - 1
  return (statistic - freedom) / np.sqrt(2 * freedom)


def test_samples_follow_the_softmax():
  rng = np.random.default_rng(0)
  logits = np.tile(rng.normal(size=12).astype(np.float32) * 2, (6000, 1))
  uniform = rng.random(6000, np.float32)
  temperature = np.full(6000, 0.7, np.float32)
  tokens, logprobs = jax.jit(drawing.sample)(logits, uniform, temperature)
  scaled = logits[0] / 0.7
  wanted = scaled - np.log(np.sum(np.exp(scaled)))
  np.testing.assert_allclose(logprobs, wanted[tokens], atol=2e-6)
  counts = np.bincount(tokens, minlength=12)
  assert _surprise(counts, np.exp(wanted)) < 4
  flat = np.exp(wanted * 0.9) / np.sum(np.exp(wanted * 0.9))
  assert _surprise(counts, flat) > 6


@pytest.mark.parametrize('size', [2, 5, 16, 300, 1000])
def test_a_token_is_where_the_sum_passes_the_number(size):
  rng = np.random.default_rng(size)
  rows = 200
  logits = rng.normal(size=(rows, size)).astype(np.float32) * 3
  impossible = rng.random((rows, size)) < 0.3
  impossible[:, size // 2] = False
  logits[impossible] = -np.inf
  uniform = rng.random(rows).astype(np.float32)
  uniform[:50], uniform[50:100] = 0.0, 1 - 2.0**-24
  ones = np.ones(rows, np.float32)
  tokens, _ = jax.jit(drawing.sample)(logits, uniform, ones)
  assert not np.any(impossible[np.arange(rows), tokens])
  wide = np.exp(logits.astype(np.float64))
  upto = np.cumsum(wide / wide.sum(-1, keepdims=True), axis=-1)
  upto = np.append(np.zeros((rows, 1)), upto, axis=1)
  below, above = (upto[np.arange(rows), tokens + i] for i in (0, 1))
  assert np.all(below <= uniform + 1e-6) and np.all(uniform <= above + 1e-6)


def test_broken_logits_name_no_token_outside_the_vocabulary():
  logits = np.full((2, 300), np.nan, np.float32)
  half = np.full(2, 0.5, np.float32)
  tokens, logprobs = jax.jit(drawing.sample)(logits, half, 2 * half)
  assert np.all((tokens >= 0) & (tokens < 300))
  assert np.all(np.isnan(logprobs))


def test_short_sequences_follow_the_model():
  """Two tokens of a vocabulary of 16, against all their probabilities."""
  config = sizes.load('toy', 16, layers=1)
  # Twice the embedding of an untrained model: logits that differ.
  params = dict(small_world.params(config))
  params['embedding'] = params['embedding'] * 2
  shape = small_world.SHAPE._replace(slots=64, capacity=32, prefill_rows=32)
  sampler = sampler_lib.Sampler(config, shape, stop_ids=(), seed=0)
  sampler.load(params, 0)
  counts, prompt = np.zeros((16, 16), int), [3, 5, 7]
  for draw in range(40):
    for slot in range(64):
      sampler.open(
        slot,
        prompt,
        draw=draw,
        member=slot,
        turn=0,
        temperature=0.8,
        limit_tokens=2,
      )
    for generated in sampler.tick():
      counts[tuple(generated.tokens)] += 1
  assert counts.sum() == 40 * 64
  rows = np.array([prompt + [token] for token in range(16)], np.int32)
  context = attention.Packed(np.ones_like(rows), np.tile(np.arange(4), (16, 1)))
  scores = _logits(config)(params, rows, context)
  softmax = jax.nn.softmax(scores / 0.8, axis=-1)
  joint = np.asarray(softmax[0, 2][:, None] * softmax[:, 3])
  assert _surprise(counts.ravel(), joint.ravel()) < 4
  assert _surprise(counts.T.ravel(), joint.ravel()) > 6


def test_nothing_compiles_again():
  """Twenty batches of new lengths, parameters, temperatures and worlds."""
  sampler = small_world.sampler()
  _episodes('append_all')
  with metrics.CompileCounter() as compilations:
    compilations.mark()
    for step in range(20):
      asked = [
        rollout.Request(10 * step + draw, task, member)
        for draw, task in enumerate(small_world.tasks(1 + step % 3))
        for member in range(1 + step % 4)
      ]
      _play(
        small_world.world(
          context=('append_all', 'keep_last')[step % 2],
          turns=1 + step % 4,
          action_tokens=3 + step % 9,
        ),
        asked,
        temperature=(0.0, 0.7, 1.0)[step % 3],
        parameters=jax.device_put(small_world.params()),
      )
    assert compilations.since_mark == []
    jax.jit(lambda x: x + 1)(jnp.zeros(3))
    assert compilations.since_mark
  assert sampler.num_active == 0


def test_every_transfer_is_explicit():
  wanted = _episodes('append_all')
  params = small_world.params()
  with jax.transfer_guard('disallow'):
    found = _play(small_world.world(), _ASKED, parameters=params)
  small_world.assert_same(found, wanted)


def test_errors_say_what_to_do():
  sampler = small_world.sampler()
  sampler.load(small_world.params(), 0)
  assert sampler.limit_tokens == 120
  ask = functools.partial(
    sampler.open, 0, [1] * 100, draw=0, member=0, turn=0, temperature=1.0
  )
  with pytest.raises(
    ValueError, match='100 tokens and 21 .* slot of 120; raise'
  ):
    ask(limit_tokens=21)
  ask(limit_tokens=20)
  with pytest.raises(ValueError, match='capacity=100 must be a multiple'):
    small_world.make_sampler(shape=small_world.SHAPE._replace(capacity=100))
  for length in (1, 48, 49, 110, 111, 112):
    shape = programs.shape_for(length, 4)
    assert shape.capacity % shape.cache_block == 0
    assert length <= shape.capacity - 16 < length + 128
  shape = programs.shape_for(10_000, 4)
  assert shape.capacity // shape.cache_block <= 8
