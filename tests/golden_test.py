"""A fixed set of episodes: the program may change its speed, not its bits.

`fixtures/golden_episodes.json` is written by

  JAX_PLATFORMS=cpu python -m tests.golden_test

To write it again is legitimate when the change is meant to alter what is
sampled: the model's function, the keys of tokens, the grammar of rows, the
world of these episodes; or to add the bits of another version of jax. It is
not when only speed, order or layout were to change. Say in the commit which.
"""

import hashlib
import json
import os
import pathlib
import platform
import re

import jax
import numpy as np
import pytest

from tests import conftest
from tests import small_world

_PATH = pathlib.Path(__file__).parent / 'fixtures' / 'golden_episodes.json'
_HELP = (
  'differ from tests/fixtures/golden_episodes.json. If the change was to alter '
  'only speed, order or layout, it is wrong. If it was meant to alter what is '
  'sampled, say so in the commit and run: '
  'JAX_PLATFORMS=cpu python -m tests.golden_test'
)


def _machine() -> str:
  """What the last bits of a float may depend on."""
  path = pathlib.Path('/proc/cpuinfo')
  text = path.read_text() if path.exists() else platform.processor()
  facts = re.findall(r'(?m)^(?:cpu family|model|flags)\s*:.*$', text)
  digest = hashlib.sha256('\n'.join(sorted(set(facts))).encode()).hexdigest()
  compiled = os.environ.get('XLA_FLAGS', '')
  return (
    f'jax {jax.__version__}, {platform.machine()} {digest[:12]}, {compiled}'
  )


def _play():
  """Both contexts, groups of two, at two temperatures."""
  return [
    episode
    for context, temperature in (('append_all', 1.0), ('keep_last', 0.7))
    for episode in small_world.play(
      small_world.world(context=context),
      small_world.requests(3, 2),
      temperature=temperature,
    )
  ]


def _digest(arrays) -> str:
  joined = hashlib.sha256()
  for array in arrays:
    joined.update(array.tobytes())
  return joined.hexdigest()


def _summary() -> dict:
  segments = [s for episode in _play() for s in episode.segments]
  said = [s.sampler_logprobs[s.action_mask] for s in segments]
  return {
    'tokens': _digest(s.tokens for s in segments),
    'action_mask': _digest(s.action_mask for s in segments),
    'lengths': [len(s.tokens) for s in segments],
    'logprobs': [[round(float(x), 6) for x in own] for own in said],
    'bits': {_machine(): _digest(s.sampler_logprobs for s in segments)},
  }


@pytest.fixture(name='found', scope='module')
def _found():
  return _summary()


@pytest.fixture(name='golden', scope='module')
def _golden():
  return json.loads(_PATH.read_text())


def test_tokens(found, golden):
  for name in ('lengths', 'action_mask', 'tokens'):
    assert found[name] == golden[name], f'The {name} of episodes {_HELP}'


def test_logprobs(found, golden):
  for own, wanted in zip(found['logprobs'], golden['logprobs'], strict=True):
    np.testing.assert_allclose(
      own, wanted, atol=1e-5, rtol=0, err_msg=f'Log-probabilities {_HELP}'
    )


def test_bits(found, golden):
  (machine,) = found['bits']
  if machine not in golden['bits']:
    pytest.skip(f'The bits of {machine} are not among the golden ones.')
  same = found['bits'][machine] == golden['bits'][machine]
  assert same, f'The bits of log-probabilities {_HELP}'


def _write() -> None:
  """Writes the fixture; keeps the bits of other machines if all else stays."""
  made = _summary()
  old = json.loads(_PATH.read_text()) if _PATH.exists() else {}
  if all(old.get(name) == made[name] for name in ('tokens', 'logprobs')):
    made['bits'] = old['bits'] | made['bits']
  _PATH.write_text(json.dumps(made, indent=1) + '\n')
  print(f'{_PATH.name}: {len(made["lengths"])} segments, {_machine()}')


if __name__ == '__main__':
  # Importing it has chosen how the tests compile.
  assert conftest
  _write()
