"""Segments leave their slots, come back and fork, and no bit is another."""

import functools
from typing import Any

import numpy as np
import pytest

from agentic_jax import metrics
from agentic_jax.models import sizes
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import feeding
from agentic_jax.sampling import following
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from tests import small_world

_SHAPE = programs.Shape(
  slots=3,
  capacity=96,
  cache_block=32,
  decode_block=4,
  prefill_rows=2,
  prefill_chunk=8,
)
_CONFIG = sizes.load('toy_experts', 64, layers=1)
_IDS = np.random.default_rng(0).integers(0, 64, 200).tolist()
_PROMPT, _OBSERVATION = _IDS[:21], _IDS[21:34]
_CHANCE = dict(draw=1, member=2, temperature=1.0)


@functools.cache
def _sampler() -> sampler_lib.Sampler:
  """Records experts and sets; what is likely depends on the segment so far."""
  return small_world.make_sampler(
    config=_CONFIG,
    shape=_SHAPE,
    stop_ids=(),
    controls=controls_lib.Controls(
      repetition_penalty=1.5, top_k=40, record=True
    ),
  )


def _fresh() -> sampler_lib.Sampler:
  _sampler().load(small_world.params(_CONFIG), 0)
  return _sampler()


def _bits(generated) -> list[Any]:
  return [
    None if field is None else np.asarray(field).tobytes()
    for field in generated[1:]
  ]


def _open(sampler, slot, tokens, limit=9, **others):
  settings = dict(turn=0, limit_tokens=limit) | _CHANCE | others
  sampler.open(slot, tokens, **settings)


def _disturb(sampler):
  """Other segments in all slots, for a while."""
  for slot in range(_SHAPE.slots):
    _open(sampler, slot, _IDS[60 + slot : 130 + slot], draw=5)
  sampler.tick()
  for slot in range(_SHAPE.slots):
    sampler.close(slot)


def _move(sampler, slot, target, host):
  parked = sampler.park(slot)
  assert not sampler.num_active
  _disturb(sampler)
  sampler.resume(target, parked.on_host() if host else parked)
  return target


def _two_turns(moves=(), *, host=False) -> tuple[list, Any]:
  """Both turns of a segment, and the segment parked after them.

  It moves to the slots of `moves`, by number: of ticks begun, or -1 between the
  turns.
  """
  sampler, moves = _fresh(), dict(moves)
  slot, tick, found = 0, 0, []
  _open(sampler, slot, _PROMPT)
  while len(found) < 2:
    if tick in moves:
      slot = _move(sampler, slot, moves[tick], host)
    tick += 1
    for generated in sampler.tick():
      found.append(generated)
      if len(found) == 1:
        if -1 in moves:
          slot = _move(sampler, slot, moves[-1], host)
        sampler.extend(slot, _OBSERVATION, turn=1, limit_tokens=9)
  return found, sampler.park(slot)


@functools.cache
def _wanted():
  return _two_turns()


@pytest.mark.parametrize('host', [False, True])
@pytest.mark.parametrize(
  'moves',
  # Before anything is fed, within a turn, between turns, before the span is.
  [{0: 1}, {1: 2, 2: 0}, {-1: 1}, {-1: 1, 3: 0, 4: 2}],
)
def test_what_comes_back_is_as_if_it_had_stayed(moves, host):
  found, parked = _two_turns(moves, host=host)
  wanted, other = _wanted()
  for one, two in zip(found, wanted, strict=True):
    assert _bits(one) == _bits(two)
    assert one.experts is not None and one.kept is not None
  # All but the last token sampled.
  assert parked.length == other.length == 21 + 9 + 13 + 9 - 1
  assert parked.held.experts.tobytes() == other.held.experts.tobytes()


def _ids() -> list[int]:
  """The segment of `_two_turns`."""
  one, two = (generated.tokens.tolist() for generated in _wanted()[0])
  return _PROMPT + one + _OBSERVATION + two


@pytest.mark.parametrize('at', [21, 22, 27, 43, 50])
def test_a_fork_at_any_token_goes_on_as_its_parent_would(at):
  """`at` is the first token that is sampled again."""
  wanted, parked = _two_turns()
  turn = int(at >= 43)
  first = (21, 43)[turn]
  sampler = _sampler()
  _disturb(sampler)
  before = sampler.prefilled_tokens
  _open(
    sampler,
    2,
    _ids()[:at],
    turn=turn,
    limit=first + 9 - at,
    begin=parked.on_host().cut(at - 1),
  )
  found = [g for _ in range(3) for g in sampler.tick()][0]
  assert sampler.prefilled_tokens == before
  own = wanted[turn]
  assert found.tokens.tolist() == own.tokens[at - first :].tolist()
  assert found.logprobs.tobytes() == own.logprobs[at - first :].tobytes()
  assert found.experts.tobytes() == own.experts.tobytes()
  assert found.kept.tobytes() == own.kept[at - first :].tobytes()


def test_what_is_beyond_a_cut_is_read():
  sampler, parked = _fresh(), _two_turns()[1]
  tokens = _ids()[:25] + _IDS[100:120]
  before = sampler.prefilled_tokens
  _open(sampler, 1, tokens, begin=parked.cut(25))
  one = [g for _ in range(3) for g in sampler.tick()][0]
  assert sampler.prefilled_tokens - before == 19
  _open(sampler, 1, tokens)
  two = [g for _ in range(3) for g in sampler.tick()][0]
  assert one.tokens.tolist() == two.tokens.tolist()
  np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-5)
  np.testing.assert_array_equal(one.experts, two.experts)
  # A prompt that was taken along is copied; half a prompt is not.
  for length, read in ((30, 0), (10, len(_PROMPT) - 1)):
    sampler.load(small_world.params(_CONFIG), 0)
    _open(sampler, 1, _PROMPT)
    whole = [g for _ in range(3) for g in sampler.tick()][0]
    ids = _PROMPT + whole.tokens.tolist()
    parked = sampler.park(1)
    _disturb(sampler)
    begin = parked.cut(min(length, parked.length))
    _open(sampler, 2, ids[: begin.length] + [1, 2], begin=begin)
    sampler.tick()
    before = sampler.prefilled_tokens
    _open(sampler, 0, _PROMPT)
    sampler.tick()
    assert sampler.prefilled_tokens - before == read


def test_nothing_compiles_when_segments_move():
  _two_turns()
  with metrics.CompileCounter() as counter:
    for moves in ({0: 1, 2: 2}, {-1: 0}):
      _two_turns(moves, host=True)
      _two_turns(moves)
    assert not counter.names


def test_what_does_not_fit_is_refused():
  ids, parked = _ids(), _two_turns()[1]
  sampler = _sampler()  # As it was when that was parked.
  with pytest.raises(ValueError, match='51 tokens .* cut at 52; .* 0 to 51'):
    parked.cut(52)
  with pytest.raises(ValueError, match=r'20 tokens .* 51 .* parked.cut\(19\)'):
    _open(sampler, 0, _IDS[:20], begin=parked)
  sampler.load(small_world.params(_CONFIG), 1)
  assert not sampler.holds(parked)
  for call in (
    lambda: sampler.resume(0, parked),
    lambda: _open(sampler, 0, ids, begin=parked),
  ):
    with pytest.raises(ValueError, match='before the parameters of step 1'):
      call()


class _Adding:
  """A grammar: which token may come next says the sum of those before."""

  def begin(self):
    return _Sum()


class _Sum:
  def __init__(self):
    self.total = 0

  def take(self, ids):
    self.total += sum(ids)

  def allowed(self):
    return np.packbits(np.arange(64) % 3 == self.total % 3, bitorder='little')


def test_a_grammar_goes_on_where_it_was():
  made = controls_lib.Controls(grammar=_Adding(), forced=(4,))
  follower = following.Follower(made, slots=2, capacity=9, vocab_size=64)
  follower.ask(0, [1, 2])
  follower.sampled(0, [4, 7], None, None)
  follower.put(1, follower.take(0))
  follower.sampled(0, [5], None, None)
  known = follower.known([True, True])
  for slot, total in enumerate((16, 11)):
    allowed = np.unpackbits(known.allowed[slot], bitorder='little')
    assert np.flatnonzero(allowed).tolist() == list(range(total % 3, 64, 3))
  assert known.said.tolist() == [3, 2]


# Long spans, piece by piece.


def _calls(monkeypatch, limit, moved=False) -> tuple[list[str], dict]:
  """The programs called, and turns by prompt, where one slot decodes.

  Two others begin with one prompt of six chunks, and one of these may move.
  """
  monkeypatch.setattr(feeding, '_CALLS', limit)
  sampler, called = _fresh(), []
  store, made = sampler._store, sampler._store.programs

  def noted(name):
    def call(*arguments):
      called.append(name)
      return getattr(made, name)(*arguments)

    return call

  names = ('prefill', 'copy', 'decode')
  changed = made._replace(**{name: noted(name) for name in names})
  monkeypatch.setattr(store, 'programs', changed)
  _open(sampler, 0, _PROMPT, limit=40)
  found = {g.slot: _bits(g) for g in sampler.tick()}
  called.clear()
  for slot in (1, 2):
    _open(sampler, slot, _IDS[40:85], member=slot)
  if moved:
    sampler.tick()
    parked = sampler.park(1)
    assert 0 < parked.length < 44
    sampler.tick()
    sampler.resume(1, parked)
  while sampler.num_active:
    found |= {g.slot: _bits(g) for g in sampler.tick()}
  monkeypatch.setattr(store, 'programs', made)
  return called, found


def test_a_long_span_does_not_stall_the_others(monkeypatch):
  called, wanted = _calls(monkeypatch, 100)
  six = ['prefill'] * 6
  assert called[:8] == [*six, 'copy', 'decode'] and 'prefill' not in called[8:]
  called, found = _calls(monkeypatch, 1)
  # Two wait for one, so that a tick has two calls.
  two = ['prefill'] * 2
  assert called[:9] == [*two, 'decode', *two, 'decode', *two, 'copy']
  assert found == wanted and len(found) == 3
  # The other one goes on without it, and may itself be fed to the end first.
  called, found = _calls(monkeypatch, 1, moved=True)
  assert found == wanted


def test_how_long_others_wait():
  four = feeding._CALLS
  assert feeding._limit_calls(31, 1) == four
  assert feeding._limit_calls(12, 20) == 2 * four
  assert feeding._limit_calls(1, 31) == 31 * four
  assert feeding._limit_calls(0, 1) > 10**6
