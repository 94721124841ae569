"""Episodes that are written down and played again, to time worlds by them."""

from collections.abc import Iterator, Sequence
import itertools
import random
import time
import tracemalloc
from typing import Any, NamedTuple

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rollout import workers as workers_lib

IN_FLIGHT = 4  # Episodes that a worker has to choose from.


class Play(NamedTuple):
  """A task, and what a policy did in it."""

  task: types.Task
  seed: int
  actions: tuple[str, ...]


class Speed(NamedTuple):
  """How much was played, and how long it took by the clock of a core."""

  resets: int
  steps: int
  reset_seconds: float
  step_seconds: float


def record(name: str, settings: dict[str, Any], number: int) -> list[Play]:
  """Plays of the oracle; of sensible actions at random where there is none.

  Args:
    name: of the environment, see `environments.load`.
    settings: of its constructor.
    number: of plays, each of a training task of its own.
  """
  environment: Any = environments.load(name, **settings)
  # A twin in a browser has the tasks of its world, others are made of seeds.
  own = name.removeprefix('browser_')
  make = tasks_lib.TASKS.get(own, tasks_lib.TASKS['seeds'])
  plays = []
  for seed, task in enumerate(itertools.islice(make('train'), number)):
    rng, actions = random.Random(seed), []
    at = environment.reset(task, seed)
    while not (at.terminated or at.truncated):
      if hasattr(environment, 'oracle'):
        actions.append(environment.oracle(at.state))
      else:
        actions.append(rng.choice(environment.admissible(at.state)))
      at = environment.step(at.state, actions[-1], seed + len(actions))
    plays.append(Play(task, seed, tuple(actions)))
  return plays


def alone(
  environment: base.Environment, plays: Sequence[Play], seconds: float
) -> Speed:
  """Plays again and again in this thread; the time is of the processor.

  Args:
    environment: that the plays are of.
    plays: at least one.
    seconds: that it lasts, about, by the clock on the wall.
  """
  resets, steps, spent = 0, 0, [0.0, 0.0]
  end = time.perf_counter() + seconds
  for play in itertools.cycle(plays):
    began = time.process_time()
    state = environment.reset(play.task, play.seed).state
    middle = time.process_time()
    for turn, action in enumerate(play.actions, 1):
      state = environment.step(state, action, play.seed + turn).state
    spent[0] += middle - began
    spent[1] += time.process_time() - middle
    resets, steps = resets + 1, steps + len(play.actions)
    if time.perf_counter() >= end:
      return Speed(resets, steps, *spent)
  raise ValueError('There are no plays.')


def together(
  environment: base.Environment,
  plays: Sequence[Play],
  number: int,
  seconds: float,
) -> float:
  """Steps a second by the clock on the wall, called as rollout calls them.

  Args:
    environment: here, or in processes of its own.
    plays: at least one.
    number: of worker threads that call it.
    seconds: that it lasts, about.

  Raises:
    RuntimeError: a call raised.
  """
  workers = workers_lib.Workers(number)
  source = itertools.cycle(plays)
  steps, waiting = 0, 0
  began = time.perf_counter()
  for _ in range(IN_FLIGHT * number):
    _submit(workers, environment, next(source))
    waiting += 1
  while waiting:
    for ticket in workers.done(60.0):
      waiting -= 1
      if ticket.error is not None:
        raise RuntimeError(f'A call raised {ticket.error}.') from ticket.error
      play, turn = ticket.key
      steps += turn > 0
      late = time.perf_counter() - began >= seconds
      if turn < len(play.actions):
        if late:
          continue
        _submit(workers, environment, play, turn + 1, ticket.result.state)
        waiting += 1
      elif not late:
        _submit(workers, environment, next(source))
        waiting += 1
  took = time.perf_counter() - began
  workers.close()
  return steps / took


def _submit(workers, environment, play: Play, turn: int = 0, state: Any = None):
  """Asks for the reset of a play, or for one of its turns."""
  if turn:
    action, seed = play.actions[turn - 1], play.seed + turn
    call = lambda: environment.step(state, action, seed)
  else:
    call = lambda: environment.reset(play.task, play.seed)
  workers.submit((play, turn), call)


def memory(
  name: str, settings: dict[str, Any], plays: Sequence[Play]
) -> tuple[float, float]:
  """Bytes of an environment that has been used, and of a state that is kept.

  Python's own objects are counted, also what the world keeps for later.

  Args:
    name: of the environment, see `environments.load`.
    settings: of its constructor.
    plays: at least one; states of all their turns are kept.
  """
  environments.load(name, **settings)  # What is imported is not counted.
  tracemalloc.start()
  try:
    environment = environments.load(name, **settings)
    for state in _states(environment, plays):
      del state
    used = tracemalloc.get_traced_memory()[0]
    kept = list(_states(environment, plays))
    after = tracemalloc.get_traced_memory()[0]
    return used, (after - used) / len(kept)
  finally:
    tracemalloc.stop()


def _states(
  environment: base.Environment, plays: Sequence[Play]
) -> Iterator[Any]:
  for play in plays:
    state = environment.reset(play.task, play.seed).state
    yield state
    for turn, action in enumerate(play.actions, 1):
      state = environment.step(state, action, play.seed + turn).state
      yield state
