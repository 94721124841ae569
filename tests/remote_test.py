"""Environments elsewhere: the same episodes, whatever becomes of a process."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from agentic_jax import environments
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.rollout import remote
from tests import small_world

_FILE = pathlib.Path(__file__).parent / 'remote_worlds.py'
_TASKS = [types.Task(i, f'task {i}') for i in range(4)]


def _moved(name, kind='process', seconds=30.0, **settings):
  path = name if name in environments.ENVIRONMENTS else f'{_FILE}:{name}'
  loaded = environments.load(path, **settings)
  return rollout.hosted(loaded, kind, 2, path, settings, seconds)


def _play(environment, workers=2, tasks=_TASKS, members=2, **limits):
  world = small_world.world(environment, **limits)
  requests = [
    rollout.Request(i, task, member)
    for i, task in enumerate(tasks)
    for member in range(members)
  ]
  played = small_world.play(world, requests, workers=workers)
  if isinstance(environment, remote.Remote):
    environment.close()
  return played


@pytest.fixture(scope='module')
def calm():
  """The episodes in threads."""
  return _play(_moved('Digest', 'thread'))


def test_episodes_do_not_depend_on_where_their_world_is(calm):
  assert len({len(e.turns) for e in calm}) > 1
  small_world.assert_same(_play(_moved('Digest'), workers=3), calm)


def test_a_process_that_dies_is_replaced(calm, tmp_path):
  played = _play(_moved('DyingOnce', folder=str(tmp_path)))
  assert list(tmp_path.iterdir()), 'the test wants some to die'
  assert not any(e.failure for e in played)
  small_world.assert_same(played, calm)


def test_a_call_that_kills_twice_costs_its_episode(calm):
  played = _play(_moved('Dying'))
  fate = [e.failure for e in played]
  assert set(fate) == {'', 'raised'}
  lost = next(e for e in played if e.failure)
  assert 'two processes of the environment died of this step' in lost.detail
  assert 'exit code 7' in lost.detail
  kept = [i for i, failure in enumerate(fate) if not failure]
  small_world.assert_same([played[i] for i in kept], [calm[i] for i in kept])


def _alive(pid):
  status = pathlib.Path(f'/proc/{pid}/stat')
  try:
    # One that has ended may wait for whoever asks how.
    return status.read_text().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def test_a_process_that_hangs_is_ended(tmp_path):
  played = _play(
    _moved('Hanging', seconds=3.0, folder=str(tmp_path)),
    tasks=_TASKS[:2],
    members=1,
    environment_seconds=3.0,
  )
  assert {e.failure for e in played} == {'hung'}
  pids = [int(path.name) for path in tmp_path.iterdir()]
  assert pids
  deadline = time.monotonic() + 30
  while any(_alive(pid) for pid in pids):
    assert time.monotonic() < deadline, 'a hanging process lives on'
    time.sleep(0.05)


_ABANDON = """
import os, pathlib, signal, sys, threading, time
from agentic_jax import environments, types
from agentic_jax.rollout import remote
asked = sys.argv[1] + ':Hanging', {'folder': sys.argv[2]}
environments.load(asked[0], **asked[1])
host = remote.Process(*asked)
host.wait()
state = host.call('reset', (types.Task(0, 'x'), 0), 60)[1].state
call = lambda: host.call('step', (state, 'a', 0), 600)
threading.Thread(target=call, daemon=True).start()
while not list(pathlib.Path(sys.argv[2]).iterdir()):
  time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_hangs_ends_with_its_parent(tmp_path):
  subprocess.run(
    [sys.executable, '-c', _ABANDON, str(_FILE), str(tmp_path)],
    cwd=_FILE.parent.parent,
    check=False,
    timeout=120,
  )
  (pid,) = (int(path.name) for path in tmp_path.iterdir())
  deadline = time.monotonic() + 30
  while _alive(pid):
    assert time.monotonic() < deadline, 'it lives on'
    time.sleep(0.05)


def test_errors_and_what_cannot_be_sent():
  (lost, *_) = _play(_moved('Raising'))
  assert lost.failure == 'raised'
  assert lost.detail == 'RuntimeError: ValueError: the world broke'
  (lost, *_) = _play(_moved('Closed'))
  assert lost.failure == 'raised'
  assert 'Closed.reset returned cannot be sent' in lost.detail
  assert '--workers=thread:N' in lost.detail
  with pytest.raises(ValueError, match='can be stepped only once'):
    _moved('Once')


def test_a_process_that_never_starts():
  with pytest.raises(remote.Died, match='exit code 1, at its start'):
    rollout.hosted(object(), 'process', 1, 'nowhere', {}, 1.0)


def test_a_process_is_without_jax_and_ends_when_told():
  environment = _moved('Telling')
  told = [
    environment.reset(_TASKS[0], 0).observation.text.split() for _ in range(3)
  ]
  pids = {int(pid) for pid, _ in told}
  assert len(pids) == 2 and os.getpid() not in pids
  assert {jax for _, jax in told} == {'False'}
  environment.close()
  assert not any(_alive(pid) for pid in pids)


def test_what_else_it_has_is_that_of_the_environment():
  environment = _moved('corridor', max_turns=3)
  assert environment.observability == 'full'
  state = environment.reset(types.Task(0, '1>3', '3'), 0).state
  assert environment.oracle(state)
  environment.close()


@pytest.mark.parametrize(
  'text, wanted',
  [('8', ('thread', 8)), ('thread:2', ('thread', 2)), ('ray:3', ('ray', 3))],
)
def test_workers_by_a_text(text, wanted):
  assert rollout.parse_workers(text) == wanted


@pytest.mark.parametrize('text', ['0', 'process', 'process:', 'fork:2', '-1'])
def test_workers_that_are_none(text):
  with pytest.raises(ValueError, match='wanted a number from 1 up'):
    rollout.parse_workers(text)
