"""Ways of stretching rotary embeddings, by numbers worked by hand."""

import math

import numpy as np
import pytest

from agentic_jax.models.pretrained import ropes

# Frequencies 1, 1/10, 1/100, 1/1000.
_FOUR = dict(rope_theta=10_000.0)


def _read(parameters, *, head_dim=8, limit=512, positions=0):
  return ropes.read(
    _FOUR | parameters,
    head_dim=head_dim,
    limit_positions=limit,
    positions=positions,
  )


def test_plain_and_linear():
  assert _read({}).divisors == () and _read({}).scale == 1.0
  assert _read(dict(rope_type='default', rope_theta=5.0)).theta == 5.0
  for name in ('type', 'rope_type'):
    assert _read({name: 'linear', 'factor': 4.0}).divisors == (4.0,) * 4
  half = _read(dict(rope_type='linear', factor=4.0, partial_rotary_factor=0.5))
  assert half.share == 0.5 and half.divisors == (4.0,) * 2


def test_by_parts():
  """In 100 positions the pairs turn 100 / (2 pi w) times, w their frequency.

  That is 15.915, 1.5915, 0.15915 and 0.015915 times. Between one and four
  turns is a ramp: (1.5915 - 1) / 3 = 0.19718, so that of the second pair's
  frequency 0.80282 / 8 + 0.19718 = 0.29753 are left.
  """
  rope = _read(
    dict(
      rope_type='llama3',
      factor=8.0,
      low_freq_factor=1.0,
      high_freq_factor=4.0,
      original_max_position_embeddings=100,
    )
  )
  np.testing.assert_allclose(rope.divisors, [1, 1 / 0.29753, 8, 8], rtol=1e-4)
  assert rope.scale == 1.0


_YARN = dict(rope_type='yarn', factor=4.0, original_max_position_embeddings=64)


def test_yarn():
  """Pair 4 ln(64 / (2 pi n)) / ln(10000) turns n times in 64 positions.

  32 turns are pair -0.497, which is before the first; one turn is pair 1.008.
  Rounded outwards, the ramp goes from 0 to 2: 0, 1/2, 1, 1. So the second
  divisor is 1 / (1/2 / 4 + 1/2) = 1.6.
  """
  rope = _read(_YARN)
  np.testing.assert_allclose(rope.divisors, [1, 1.6, 4, 4], rtol=1e-12)
  assert rope.scale == pytest.approx(0.1 * math.log(4) + 1)
  # Not rounded, the ramp ends at 1.00800: the second pair is 0.992063 of it.
  exact = _read(_YARN | dict(truncate=False))
  wanted = 1 / (0.992063 / 4 + 1 - 0.992063)
  np.testing.assert_allclose(exact.divisors, [1, wanted, 4, 4], rtol=1e-5)
  # Turning 4 times is pair 0.406, half a time 1.309: from 0 to 2 again, but
  # turning 0.05 times is pair 2.309: from 0 to 3.
  wide = _read(_YARN | dict(beta_fast=4, beta_slow=0.05))
  wanted = [1, 1 / (1 / 12 + 2 / 3), 1 / (2 / 12 + 1 / 3), 4]
  np.testing.assert_allclose(wide.divisors, wanted, rtol=1e-12)


def test_temper_of_yarn():
  assert _read(_YARN | dict(attention_factor=1.5)).scale == 1.5
  both = dict(mscale=2.0, mscale_all_dim=0.5)
  wanted = (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1)
  assert _read(_YARN | both).scale == pytest.approx(wanted)
  implied = {k: v for k, v in _YARN.items() if k != 'factor'}
  assert _read(implied, limit=256) == _read(_YARN)


@pytest.mark.parametrize('kind', ['longrope', 'su'])
def test_longrope_has_two_sets(kind):
  given = dict(
    rope_type=kind,
    short_factor=[1.0, 1.1, 1.2, 1.3],
    long_factor=[2.0, 3.0, 4.0, 5.0],
    original_max_position_embeddings=64,
  )
  short, long = _read(given, positions=64), _read(given, positions=65)
  assert short.divisors == (1.0, 1.1, 1.2, 1.3)
  assert long.divisors == (2.0, 3.0, 4.0, 5.0)
  # Both are tempered by how much the whole was stretched: 512 / 64 = 8.
  assert short.scale == long.scale == pytest.approx(math.sqrt(1 + 3 / 6))
  assert _read(given, limit=64).scale == 1.0
  assert _read(given | dict(attention_factor=1.2)).scale == 1.2
  with pytest.raises(ValueError, match='4 factors of LongRoPE for 2 pairs'):
    _read(given, head_dim=4)


def test_errors_name_the_type():
  with pytest.raises(ValueError, match="type 'dynamic'; there are .*'yarn'"):
    _read(dict(rope_type='dynamic'))
  with pytest.raises(ValueError, match="'linear', which need 'factor'; it has"):
    _read(dict(rope_type='linear'))
