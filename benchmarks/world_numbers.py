"""What is measured of worlds, and what is wanted of it."""

from collections.abc import Callable, Sequence
import functools
import itertools
import json
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from agentic_jax import environments
from agentic_jax import rollout
from agentic_jax import tasks
from agentic_jax.environments import on_device as on_device_lib
from agentic_jax.rollout import remote
from agentic_jax.tasks import mazes
from benchmarks import plays as plays_lib

# Steps a second of a core that are wanted of a world.
MARK = 5000
MARKS = {'kb_search': 1000, 'mini_code': 200}
DEVICE_MARK = 1_000_000
_TEXTS = 60  # Tasks of which episodes that step at once are.
START_SECONDS = 0.5
# Of worlds of other packages, settings to measure them with; no mark.
SETTINGS: dict[str, dict[str, Any]] = {
  'babyai': {},
  'gymnasium': {'id': 'FrozenLake-v1'},
  'minigrid': {'id': 'MiniGrid-DoorKey-5x5-v0'},
  'reasoning_gym': {'name': 'chain_sum'},
}
_BRINGS_JAX = (
  'import json, sys; from agentic_jax.environments import hosting; '
  'hosting.environments.load(sys.argv[1], **json.loads(sys.argv[2])); '
  'print("jax" in sys.modules)'
)


def started(name: str, settings: dict[str, Any]) -> tuple[float, float]:
  """Seconds that a worker takes to be there: of the wall, of the processor."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  began = time.perf_counter()
  host = remote.Process(name, settings)
  host.wait()
  took = time.perf_counter() - began
  host.kill()
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
  return took, spent


def brings_jax(name: str, settings: dict[str, Any]) -> bool:
  """Whether jax is imported where a worker has made its world."""
  command = [sys.executable, '-c', _BRINGS_JAX, name, json.dumps(settings)]
  said = subprocess.run(command, capture_output=True, text=True, check=True)
  return said.stdout.strip() == 'True'


def with_workers(
  name: str,
  settings: dict[str, Any],
  played: Sequence[plays_lib.Play],
  text: str,
  seconds: float,
) -> float | None:
  """Steps a second by workers such as process:2; None where it has no such."""
  kind, number = remote.parse(text)
  here = environments.load(name, **settings)
  if kind != 'thread' and not getattr(here, 'forkable', True):
    return None
  world = rollout.hosted(here, kind, number, name, settings, 60.0)
  try:
    return plays_lib.together(world, played, number, seconds)
  finally:
    if kind != 'thread':
      world.close()


def misses(name: str, found: dict[str, Any]) -> list[str]:
  """What is worse than wanted, in words."""
  said = []
  if found['wanted'] is not None:
    if found['steps/s'] < found['wanted']:
      said.append(f'{found["steps/s"]:,.0f} steps/s of {found["wanted"]:,}')
    if found['start, processor s'] > START_SECONDS:
      said.append(f'{found["start, processor s"]:.2f} s to start a worker')
    if found['brings jax']:
      said.append('it brings jax')
  return [f'{name}: {text}' for text in said]


def on_device(name: str, episodes: int, seconds: float) -> dict[str, float]:
  """Steps a second in one program, by the wall and by the processor.

  Args:
    name: a key of `environments.ON_DEVICE`.
    episodes: that step at once.
    seconds: that it lasts, about.
  """
  count = 100
  begin, step = _device_world(name, episodes)

  @jax.jit
  def walk(key, state):
    ways = jax.random.randint(key, (count, episodes), 0, 4)

    def once(state, way):
      moved = step(on_device_lib.restart(state, begin), way)
      return moved.state, moved.reward.sum()

    return jax.lax.scan(once, state, ways)

  state = jax.block_until_ready(walk(jax.random.key(0), begin))[0]
  calls, began, spent = 0, time.perf_counter(), time.process_time()
  while time.perf_counter() - began < seconds:
    state, _ = jax.block_until_ready(walk(jax.random.key(calls), state))
    calls += 1
  steps = calls * count * episodes
  return {
    'steps/s': steps / (time.perf_counter() - began),
    'steps/s of a core': steps / (time.process_time() - spent),
  }


def _device_world(name: str, episodes: int) -> tuple[Any, Callable[..., Any]]:
  """The beginnings of episodes, and the step: (state, way) -> Moved."""
  own = tasks.TASKS[environments.ON_DEVICE[name]]('train')
  few = [task.prompt for task in itertools.islice(own, _TEXTS)]
  texts = [few[number % len(few)] for number in range(episodes)]
  if name == 'mazes_on_device':
    begin = on_device_lib.grids([mazes.read(text) for text in texts], 5, 6)
    step = functools.partial(on_device_lib.maze_step, width=8, max_turns=32)
    return jax.tree.map(jnp.asarray, begin), step
  places = [(int(text[0]), int(text[2])) for text in texts]  # As in 2>5.
  begin = jax.tree.map(jnp.asarray, on_device_lib.walks(places))
  return begin, lambda state, way: on_device_lib.corridor_step(
    state, way % 2, way < 0, length=8, max_turns=12
  )
