"""Distillation agrees with the numbers of an independent float64 reference."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages
from agentic_jax import distillation
from agentic_jax import losses

_PATH = pathlib.Path(__file__).parent / 'fixtures' / 'distillation.json'
_CASES = json.loads(_PATH.read_text())['cases']


def _divergence(s_logits, t_logits, *, kind='reverse_kl', **settings):
  function = {
    'reverse_kl': distillation.reverse_kl,
    'forward_kl': distillation.forward_kl,
    'gjsd': distillation.jensen_shannon,
  }[kind]
  mask = jnp.ones(s_logits.shape[:-1], bool)
  return function(s_logits, t_logits, mask, **settings)


def _gkd(s_logits, t_logits, mask, *, beta=0.5, temperature=1.0):
  divergence = distillation.jensen_shannon(
    s_logits / temperature, t_logits / temperature, mask, beta=beta
  )
  weights = losses.token_weights(mask, dtype=s_logits.dtype)
  return jnp.sum(weights * divergence)


def _forward_top(s_logits, t_logits, *, k):
  mask = jnp.ones(s_logits.shape[:-1], bool)
  teacher = distillation.top_tokens(t_logits, count=k)
  student = distillation.token_logprobs(s_logits, teacher.tokens)
  return distillation.truncated_forward_kl(student, teacher.logprobs, mask)


def _reverse_top(s_logits, t_logits, *, k, topk_from='teacher'):
  mask = jnp.ones(s_logits.shape[:-1], bool)
  source = s_logits if topk_from == 'student' else t_logits
  tokens = distillation.top_tokens(source, count=k).tokens
  both = [distillation.token_logprobs(x, tokens) for x in (s_logits, t_logits)]
  return distillation.tailed_reverse_kl(*both, mask)


def _hindsight(logp, hint_teacher_logp, scores, mask):
  outcome = advantages.episodes_to_tokens(scores, mask)
  return outcome + distillation.teacher_advantages(
    logp, hint_teacher_logp, mask
  )


_RUN = {
  'opd_advantage': distillation.teacher_advantages,
  'hindsight_opd_advantage': _hindsight,
  'token_divergence': _divergence,
  'gkd_loss': _gkd,
  'forward_kl_topk': _forward_top,
  'topk_reverse_kl_with_tail': _reverse_top,
}
_NAMES = {'logp': 'logprobs', 'teacher_logp': 'teacher_logprobs'}


def _arrays(case, dtype):
  """The inputs of a case, in the types that the package wants."""
  names = _NAMES if case['fn'] == 'opd_advantage' else {}
  return {
    names.get(k, k): jnp.asarray(v, bool if k == 'mask' else dtype)
    for k, v in case['inputs'].items()
  }


@functools.cache
def _results(fn, dtype):
  """The output of every case of a function, by id. One compilation."""
  cases = {case['id']: case for case in _CASES if case['fn'] == fn}

  def run(inputs):
    return {
      name: _RUN[fn](**inputs[name], **case['params'])
      for name, case in cases.items()
    }

  with jax.enable_x64(dtype == np.float64):
    arrays = {k: _arrays(case, dtype) for k, case in cases.items()}
    return jax.device_get(jax.jit(run)(arrays))


@pytest.mark.parametrize('case', _CASES, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  assert case['expected'].keys() == {'out'}
  for dtype, tolerance in ((np.float32, 2e-5), (np.float64, 1e-9)):
    out = _results(case['fn'], dtype)[case['id']]
    assert out.dtype == dtype
    np.testing.assert_allclose(
      out,
      np.asarray(case['expected']['out']),
      rtol=tolerance,
      atol=tolerance,
      err_msg=str(np.dtype(dtype)),
    )
