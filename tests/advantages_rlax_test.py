"""Estimators over time agree with rlax, where it is installed.

rlax knows no masks: it gets the slots that count, row by row.
"""

import numpy as np
import pytest

from agentic_jax import advantages

rlax = pytest.importorskip('rlax')

_DISCOUNT, _LAMBDA = 0.95, 0.8
_SETTINGS = {'discount': _DISCOUNT, 'lambda_': _LAMBDA}


class _Row:
  """The slots of a row that count, as rlax wants them."""

  def __init__(self, batch, row):
    inside = batch['mask'][row]
    self.inside = inside
    self.rewards, self.values, self.ratio = (
      batch[name][row, inside] for name in ('rewards', 'values', 'ratio')
    )
    self.bootstrapped = np.append(self.values, batch['bootstrap'][row])
    self.discounts = np.full_like(self.rewards, _DISCOUNT)


@pytest.fixture(name='batch', scope='module')
def _batch():
  rng = np.random.default_rng(0)
  shape = 5, 30
  return {
    'rewards': rng.normal(size=shape).astype(np.float32),
    'values': rng.normal(size=shape).astype(np.float32),
    'ratio': np.exp(rng.normal(size=shape)).astype(np.float32),
    'mask': rng.random(shape) < 0.7,
    'bootstrap': rng.normal(size=shape[0]).astype(np.float32),
  }


def _agree(batch, found, of_row):
  """Asserts that arrays [B, T] hold what rlax says of each row."""
  for row in range(len(batch['mask'])):
    data = _Row(batch, row)
    own = [np.asarray(x)[row, data.inside] for x in found]
    for ours, theirs in zip(own, of_row(data), strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_returns(batch):
  found = advantages.discounted_returns(
    batch['rewards'],
    batch['mask'],
    discount=_DISCOUNT,
    bootstrap=batch['bootstrap'],
  )
  ahead = lambda row: np.full_like(row.rewards, row.bootstrapped[-1])
  _agree(
    batch,
    [found],
    lambda row: [
      rlax.discounted_returns(row.rewards, row.discounts, ahead(row))
    ],
  )


def test_gae(batch):
  inputs = [batch[name] for name in ('rewards', 'values', 'mask')]
  found = advantages.gae(*inputs, bootstrap=batch['bootstrap'], **_SETTINGS)

  def of_row(row):
    gae = rlax.truncated_generalized_advantage_estimation(
      row.rewards, row.discounts, _LAMBDA, row.bootstrapped
    )
    returns = rlax.lambda_returns(
      row.rewards, row.discounts, row.bootstrapped[1:], _LAMBDA
    )
    return gae, returns

  _agree(batch, found, of_row)


def test_vtrace(batch):
  inputs = [batch[name] for name in ('rewards', 'values', 'ratio', 'mask')]
  found = advantages.vtrace(
    *inputs,
    value_cap=1.3,
    policy_cap=0.7,
    bootstrap=batch['bootstrap'],
    **_SETTINGS,
  )

  def of_row(row):
    out = rlax.vtrace_td_error_and_advantage(
      row.bootstrapped[:-1],
      row.bootstrapped[1:],
      row.rewards,
      row.discounts,
      row.ratio,
      _LAMBDA,
      clip_rho_threshold=1.3,
      clip_pg_rho_threshold=0.7,
    )
    return out.pg_advantage, out.errors + row.values

  _agree(batch, found, of_row)
