"""Saved and restored to the bit; half-written and broken ones survived."""

import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agentic_jax import checkpoint
from agentic_jax.checkpoint import leaves


class _State(NamedTuple):
  params: dict
  optimizer: optax.OptState
  key: jax.Array
  step: int
  seen: np.ndarray
  empty: tuple
  nothing: None = None


def _state(scale: float = 1.0) -> _State:
  params = {
    'layer': {'kernel': scale * jnp.arange(12.0).reshape(3, 4) / 7},
    'bias': jnp.full(4, scale, jnp.bfloat16),
  }
  return _State(
    params=params,
    optimizer=optax.adam(1e-3).init(params),
    key=jax.random.fold_in(jax.random.key(3), 5),
    step=int(7 * scale),
    seen=np.array([2**40, 3]),
    empty=(np.zeros((0, 3), np.int8), jnp.zeros((2, 0))),
  )


def _assert_equal(actual: _State, expected: _State) -> None:
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    assert type(a) is type(b)
    if leaves.is_key(b):
      assert a.dtype == b.dtype
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert np.asarray(a).dtype == np.asarray(b).dtype


HOST = {'tasks': 17, 'third': 1 / 3, 'nested': {'é': [1, None, True]}}


@pytest.mark.parametrize('abstract', [False, True])
def test_everything_comes_back(tmp_path, abstract):
  state = _state()
  with checkpoint.Checkpoints(tmp_path / 'new' / 'checkpoints') as checkpoints:
    assert checkpoints.latest_step() is None
    assert checkpoints.restore_latest(state) is None
    checkpoints.save(7, state, HOST)
  template = _state(0.0)
  if abstract:
    template = template._replace(
      params=jax.eval_shape(lambda: state.params),
      key=jax.eval_shape(lambda: state.key),
    )
  restored = checkpoint.Checkpoints(
    tmp_path / 'new' / 'checkpoints'
  ).restore_latest(template)
  assert restored.step == 7 and restored.host == HOST
  _assert_equal(restored.arrays, state)


def test_saving_reads_arrays_before_they_change(tmp_path):
  step = jax.jit(lambda x: x + 1, donate_argnums=0)
  value, mine = jnp.zeros((512, 512)), np.zeros(1000)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(0, {'value': value, 'mine': mine}, {})
    mine += 1
    value = step(step(value))
  template = {'value': value, 'mine': mine}
  arrays = checkpoint.Checkpoints(tmp_path).restore(0, template).arrays
  assert not np.any(arrays['value']) and not np.any(arrays['mine'])


def test_the_newest_stay(tmp_path):
  with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
    for step in (1, 5, 20):
      checkpoints.save(step, {'x': jnp.float32(step)}, {})
    checkpoints.save(20, {'x': jnp.float32(21.0)}, {'again': True})
    checkpoints.wait()
    assert checkpoints.steps() == [5, 20]
    restored = checkpoints.restore(20, {'x': jnp.float32(0)})
  assert restored.arrays['x'] == 21 and restored.host == {'again': True}
  with pytest.raises(ValueError, match=r'step 1; possible are \[5, 20\]'):
    checkpoints.restore(1, {'x': jnp.float32(0)})
  with pytest.raises(ValueError, match='at least 1'):
    checkpoint.Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize(
  'change, text',
  [
    (lambda s: s | {'more': jnp.zeros(2)}, 'more is missing in it'),
    (lambda s: {'x': s['x']}, 'y.z is only in it'),
    (
      lambda s: s | {'x': jnp.zeros((3, 2))},
      r'x is float32\[2, 3\], here float32\[3, 2\]',
    ),
    (
      lambda s: s | {'x': jnp.zeros((2, 3), jnp.bfloat16)},
      r'x is float32\[2, 3\], here bfloat16\[2, 3\]',
    ),
  ],
)
def test_another_structure_is_refused_by_name(tmp_path, change, text):
  saved = {'x': jnp.zeros((2, 3)), 'y': {'z': jnp.zeros(1)}}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, saved, {})
    checkpoints.wait()
    with pytest.raises(ValueError, match=f'1 leaves differ: {text}. Restart'):
      checkpoints.restore_latest(change(saved))
    assert checkpoints.steps() == [1]


def test_host_must_be_json(tmp_path):
  with pytest.raises(TypeError, match='`host` wants.*Convert it'):
    checkpoint.Checkpoints(tmp_path).save(0, {'x': jnp.ones(1)}, {'a': {1}})
  assert not checkpoint.Checkpoints(tmp_path).steps()


def test_orbax_keeps_quiet(tmp_path):
  code = (
    'import sys; from absl import app; from agentic_jax import checkpoint\n'
    'import jax.numpy as jnp\n'
    'def main(_):\n'
    '  with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:\n'
    '    checkpoints.save(1, {"x": jnp.ones(1)}, {})\n'
    '    checkpoints.restore_latest({"x": jnp.ones(1)})\n'
    'app.run(main)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    capture_output=True,
    check=True,
    text=True,
  )
  assert done.stdout + done.stderr == ''


def _save_two(directory: pathlib.Path) -> None:
  with checkpoint.Checkpoints(directory) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, {'x': jnp.full((64, 64), step)}, {'step': step})


def _cut_data(path: pathlib.Path) -> None:
  for file in (path / 'arrays').rglob('*'):
    if file.is_file() and file.parent.name == 'd':
      file.write_bytes(file.read_bytes()[:20])


@pytest.mark.parametrize(
  'damage',
  [
    _cut_data,
    lambda path: shutil.rmtree(path / 'arrays'),
    lambda path: (path / 'arrays' / '_METADATA').write_text('{'),
    lambda path: (path / 'host' / 'metadata').write_text('{"hos'),
    lambda path: (path / 'host' / 'metadata').unlink(),
  ],
)
def test_a_broken_checkpoint_falls_back(tmp_path, damage):
  _save_two(tmp_path)
  damage(tmp_path / 'step_000002')
  template = {'x': jnp.zeros((64, 64), jnp.int32)}
  records = []
  handler = logging.Handler()
  handler.emit = lambda record: records.append(record.getMessage())
  logging.getLogger('absl').addHandler(handler)
  try:
    checkpoints = checkpoint.Checkpoints(tmp_path)
    restored = checkpoints.restore_latest(template)
  finally:
    logging.getLogger('absl').removeHandler(handler)
  assert restored.step == 1 and restored.host == {'step': 1}
  assert np.all(restored.arrays['x'] == 1)
  assert any('step_000002 cannot be read' in text for text in records)
  assert checkpoints.steps() == [1]

  damage(tmp_path / 'step_000001')
  with pytest.raises(checkpoint.CorruptError, match='None of the checkpoints'):
    checkpoints.restore_latest(template)


def test_what_a_killed_run_left_is_not_picked_up(tmp_path):
  _save_two(tmp_path)
  for name in ('step_000003.orbax-checkpoint-tmp-0', 'deleted.step_000000'):
    shutil.copytree(tmp_path / 'step_000002', tmp_path / name)
  (tmp_path / 'step_000009').mkdir()
  checkpoints = checkpoint.Checkpoints(tmp_path)
  template = {'x': jnp.zeros((64, 64), jnp.int32)}
  assert checkpoints.restore_latest(template).step == 2
  with checkpoints:
    checkpoints.save(3, {'x': jnp.full((64, 64), 3)}, {})
  left = {p.name for p in tmp_path.iterdir() if p.name.startswith('step')}
  assert {'step_000002', 'step_000003'} <= left
  assert not any('tmp' in name for name in left)


_LOOP = """
import sys
import jax.numpy as jnp
from agentic_jax import checkpoint
with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
  for step in range(1, 10_000):
    x = jnp.full((256, 256), step)
    checkpoints.save(step, {str(i): x for i in range(8)}, {'step': step})
    print(step, flush=True)
"""


@pytest.mark.parametrize('delay', [0.0, 0.013, 0.031])
def test_killed_while_saving(tmp_path, delay):
  process = subprocess.Popen(
    [sys.executable, '-c', _LOOP, str(tmp_path)], stdout=subprocess.PIPE
  )
  for _ in range(4):
    begun = int(process.stdout.readline())
  time.sleep(delay)
  os.kill(process.pid, signal.SIGKILL)
  begun += process.stdout.read().count(b'\n')
  process.wait()
  template = {str(i): jnp.zeros((256, 256), jnp.int32) for i in range(8)}
  restored = checkpoint.Checkpoints(tmp_path).restore_latest(template)
  # `save` waits for the one before, so that one is there.
  assert restored.step in (begun - 1, begun, begun + 1)
  assert restored.host == {'step': restored.step}
  for value in restored.arrays.values():
    assert np.all(value == restored.step)


_MESH = """
import sys
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from agentic_jax import checkpoint
assert jax.device_count() == 8
value = np.arange(64.0, dtype=np.float32).reshape(8, 8)
def shardings(shape, spec):
  mesh = Mesh(np.array(jax.devices()).reshape(shape), ('fsdp', 'tensor'))
  return NamedSharding(mesh, PartitionSpec(*spec))
one = shardings((4, 2), ('fsdp', 'tensor'))
other = shardings((2, 4), ('tensor', None))
with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
  checkpoints.save(1, {'x': jax.device_put(value, one)}, {})
template = {'x': jax.ShapeDtypeStruct((8, 8), np.float32, sharding=other)}
x = checkpoints.restore(1, template).arrays['x']
assert x.sharding == other, x.sharding
np.testing.assert_array_equal(np.asarray(x), value)
"""


def test_another_mesh(tmp_path):
  flags = os.environ.get('XLA_FLAGS', '')
  flags += ' --xla_force_host_platform_device_count=8'
  subprocess.run(
    [sys.executable, '-c', _MESH, str(tmp_path)],
    env=os.environ | {'XLA_FLAGS': flags.strip()},
    check=True,
  )
  x = checkpoint.Checkpoints(tmp_path).restore(1, {'x': jnp.zeros((8, 8))})
  np.testing.assert_array_equal(x.arrays['x'].ravel(), np.arange(64.0))
