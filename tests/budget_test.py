"""Slots of a stated memory: the arithmetic, and what is refused."""

import dataclasses
import math

import jax
import pytest

from agentic_jax.models import config as config_lib
from agentic_jax.models import transformer
from agentic_jax.sampling import budget
from agentic_jax.sampling import passes
from agentic_jax.sampling import programs
from agentic_jax.sampling import speculation
from tests import small_world

_SHAPE = programs.shape_for(100, 4)
# 2 layers x 2 x 2 heads x 8 x 128 positions x 4 bytes.
_CACHE = 2 * 2 * 2 * 8 * 128 * 4
_LOGITS = 4 * 272
_SLOT = _CACHE + _LOGITS


def _bytes(tree) -> int:
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)


def _config(**settings) -> config_lib.TransformerConfig:
  return dataclasses.replace(small_world.config(), **settings)


def test_a_slot_is_what_its_arrays_are():
  config = _config()
  found = budget.of_slots(config, _SHAPE)
  assert (found.cache, found.logits, found.images) == (_CACHE, _LOGITS, 0)
  arrays = programs.empty_caches(config, _SHAPE)
  assert _bytes(arrays) == 4 * found.cache
  layout = transformer.decode_layout(config, small_world.params())
  assert found.parameters == _bytes(layout)
  assert found.taken == found.parameters + 4 * _SLOT
  half = budget.of_slots(_config(dtype='bfloat16'), _SHAPE)
  assert half.cache == _CACHE / 2 and half.parameters < 0.6 * found.parameters


def test_who_drafts_takes_its_share():
  config = _config()
  plain = budget.of_slots(config, _SHAPE)
  other = speculation.Speculation(4, config=config)
  found = budget.of_slots(config, _SHAPE, other)
  arrays = passes.empty_caches(config, _SHAPE, other)
  assert _bytes(arrays) == 4 * found.cache == 8 * plain.cache
  assert found.parameters == 2 * plain.parameters
  assert found.logits == 9 * plain.logits
  found = budget.of_slots(config, _SHAPE, speculation.Speculation(4))
  assert found.cache == plain.cache and found.logits == 5 * plain.logits


def _admit(bytes_beside_parameters, **settings):
  config = _config()
  memory = budget.of_parameters(config) + bytes_beside_parameters
  chosen = dict(most=99) | settings
  return budget.admit(config, _SHAPE, memory, **chosen)


@pytest.mark.parametrize(
  ('room', 'settings', 'slots', 'parked'),
  [
    (10 * (_SLOT + _CACHE) + _CACHE, {}, 10, 10),
    (11 * (_SLOT + _CACHE) + _CACHE - 1, {}, 10, 10),
    (10 * _SLOT, {'parks': False}, 10, 0),
    (10 * (_SLOT + _CACHE), {'most': 3}, 3, 3),
    (10 * (_SLOT + _CACHE), {'asked': 12}, 12, 6),
    (_SLOT, {}, 1, 0),
    (5 * _SLOT, {'asked': 5}, 5, 0),
  ],
)
def test_slots_and_parked_segments_fill_the_memory(
  room, settings, slots, parked
):
  found = _admit(room, **settings)
  assert (found.slots, found.parked) == (slots, parked)
  assert found.taken <= found.memory
  said = budget.describe(_config(), _SHAPE, found)
  assert '2 layers x 2 x 2 heads x 8 x 128 positions x 4 bytes' in said
  assert f'{slots} slots x (32.0KiB cache' in said
  assert f'{parked} parked x 32.0KiB' in said


def test_what_does_not_fit_says_what_would():
  with pytest.raises(ValueError, match='not hold 6 slots: .* --slots=5'):
    _admit(6 * _SLOT - 1, asked=6)
  config = _config()
  longer = programs.shape_for(900, 4)
  memory = budget.of_parameters(config) + 3 * _CACHE + _LOGITS
  with pytest.raises(ValueError, match='one slot: .*=segment_tokens to 368'):
    budget.admit(config, longer, memory, most=4)
  # That fits, and one more does not.
  for length, fits in ((368, True), (369, False)):
    shape = programs.shape_for(length, 4)
    assert (shape.capacity <= 3 * 128) == fits
  with pytest.raises(ValueError, match='3 slots: .*=segment_tokens to 112'):
    budget.admit(config, longer, memory + 3 * _LOGITS, most=4, asked=3)
  raised = -(-(memory + 5 * _CACHE) // 2**20)
  with pytest.raises(ValueError, match=f'Raise it to --memory={raised}MiB'):
    budget.admit(config, longer, memory, most=4)
  with pytest.raises(ValueError, match='smaller --model, or --dtype=bfloat16'):
    budget.admit(config, _SHAPE, 1000, most=4)


def test_the_context_follows_from_the_slots():
  config = _config()
  found = _admit(4 * _LOGITS + 9 * _CACHE, asked=4, parks=False)
  assert (found.slots, found.parked) == (4, 0)
  # 2.25 x 128 positions a slot: two blocks of 128, a chunk of 16 of padding.
  assert budget.longest_segments(config, _SHAPE, found) == 2 * 128 - 16
  parking = found._replace(parked=4)
  assert budget.longest_segments(config, _SHAPE, parking) == 128 - 16
  none = found._replace(memory=found.parameters + 4 * _LOGITS + 100)
  assert budget.longest_segments(config, _SHAPE, none) == 0


def test_amounts():
  assert budget.parse('2GiB') == 2**31
  assert budget.parse('1.5 MB') == 1_500_000
  for text in ('2', 'GiB', '2 gigs', '-1GiB', ''):
    with pytest.raises(ValueError, match='such as --memory=2GiB'):
      budget.parse(text)
  assert budget.show(2**31) == '2.0GiB' and budget.show(12) == '12B'
