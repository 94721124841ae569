"""Losses agree with those of trl, where it is installed."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import distillation
from agentic_jax import preferences

pytest.importorskip('trl')
torch = pytest.importorskip('torch')
cpo_trainer = pytest.importorskip('trl.experimental.cpo.cpo_trainer')
gkd_trainer = pytest.importorskip('trl.experimental.gkd.gkd_trainer')
orpo_trainer = pytest.importorskip('trl.experimental.orpo.orpo_trainer')

_RNG = np.random.default_rng(0)
_CHOSEN, _REJECTED = -_RNG.exponential(size=(2, 16)).astype(np.float32)
_MARGINS = jnp.asarray(_CHOSEN - _REJECTED)


def _close(actual, desired):
  np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-6)


def _settings(**settings):
  """What trl's methods read of their trainer."""
  device = types.SimpleNamespace(device='cpu')
  fixed = dict(accelerator=device, alpha=0.0, label_smoothing=0.0)
  return types.SimpleNamespace(**fixed | settings)


def _cpo(**settings):
  losses, *_ = cpo_trainer.CPOTrainer.cpo_loss(
    _settings(**settings), torch.tensor(_CHOSEN), torch.tensor(_REJECTED)
  )
  return losses.numpy()


def test_losses_of_margins():
  smooth = dict(beta=0.3, label_smoothing=0.2, loss_type='sigmoid')
  _close(
    preferences.logistic(_MARGINS, beta=0.3, flip_rate=0.2), _cpo(**smooth)
  )
  _close(
    preferences.hinge(_MARGINS, beta=2.0), _cpo(beta=2.0, loss_type='hinge')
  )
  _close(
    preferences.squared(_MARGINS, beta=0.3), _cpo(beta=0.3, loss_type='ipo')
  )
  _close(
    preferences.logistic(_MARGINS, beta=2.0, offset=1.0),
    _cpo(beta=2.0, simpo_gamma=1.0, loss_type='simpo'),
  )


def test_odds_ratio():
  out, *_ = orpo_trainer.ORPOTrainer.odds_ratio_loss(
    _settings(beta=1.0), torch.tensor(_CHOSEN), torch.tensor(_REJECTED)
  )
  odds = [preferences.log_odds(jnp.asarray(x)) for x in (_CHOSEN, _REJECTED)]
  # Theirs is what is taken off the likelihood's loss.
  _close(preferences.logistic(odds[0] - odds[1], beta=1.0), -out.numpy())


@pytest.mark.parametrize('beta', [0.0, 0.1, 0.5, 1.0])
def test_divergence_of_vocabularies(beta):
  student, teacher = _RNG.normal(size=(2, 3, 4, 7)).astype(np.float32)
  theirs = gkd_trainer.GKDTrainer.generalized_jsd_loss(
    torch.tensor(student),
    torch.tensor(teacher),
    beta=beta,
    temperature=0.9,
    reduction='none',
  )
  ours = distillation.jensen_shannon(
    student / 0.9, teacher / 0.9, jnp.ones((3, 4), bool), beta=beta
  )
  _close(ours, theirs.sum(-1).numpy())
