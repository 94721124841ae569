"""What slots cost and spare: long observations, forks, slow worlds, capacity.

Six measurements, each with the state before beside it, in one process:

* pause: the longest time between two looks at a slot that decodes, while a
  2,000-token observation arrives in another one; with all of it fed at once,
  and piece by piece. Also the time until that observation was answered.
* forks: rollouts from every turn (VinePPO) and trees (Tree-GRPO); tokens read
  and seconds, with beginnings read again and with caches of the parents.
* slow: 64 episodes in 16 slots, in a world that answers after up to --delay_ms;
  without parking and with as many segments parked as there are slots. Perfect
  overlap is the time of the same batch without delays; that also with all
  observations fed at once.
* capacity: a decode step at 100 tokens, in slots of several capacities.
* lengths: a decode step of 32 slots that are all short, short but for one, and
  all long: what slots sorted into buckets by their length could spare at most.
* memory: what the arithmetic of --memory says of these slots, and what the
  arrays take.

Kinds take turns and medians count, so that all see one machine. Nothing may
compile after the first round.

Command: python benchmarks/slots.py
"""

from collections.abc import Callable, Mapping
import functools
import hashlib
import math
import statistics
import time
from typing import Any

from absl import app
from absl import flags
import jax
import numpy as np

from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax import types
from agentic_jax.rollout import branching
from agentic_jax.sampling import budget
from agentic_jax.sampling import feeding
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import drawing
from benchmarks import common
from experiments import pages

_REPEATS = flags.DEFINE_integer('repeats', 5, 'Of each kind.', lower_bound=1)
_DELAY = flags.DEFINE_float(
  'delay_ms', 200.0, 'What a slow world takes to answer, at most.'
)
_ONLY = flags.DEFINE_list('only', [], 'Measurements to make; all by default.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

_LONG, _NEW = 2000, 640
_TURNS, _ACTION = 6, 8


class Varying(common.Talk):
  """Talk that answers after a time that follows from what was said."""

  def __init__(self, *, turns: int, most_seconds: float, answer: str):
    super().__init__(turns=turns, answer=answer)
    self._most = most_seconds

  def step(
    self, state: common.TalkState, action: str, seed: int
  ) -> types.Transition:
    """The answer, after up to `most_seconds`."""
    digest = hashlib.sha256(f'{seed}'.encode()).digest()
    time.sleep(self._most * digest[0] / 255)
    return super().step(state, action, seed)


def _in_turns(runs: Mapping[str, Callable[[], Any]]) -> dict[str, list[Any]]:
  """What each kind gives, `repeats` times; the first round does not count."""
  found: dict[str, list[Any]] = {name: [] for name in runs}
  with metrics.CompileCounter() as compilations:
    for _ in range(1 + _REPEATS.value):
      for name, run in runs.items():
        found[name].append(run())
      if len(found[name]) == 1:
        compilations.mark()
    assert not compilations.since_mark, compilations.since_mark
  return {name: values[1:] for name, values in found.items()}


def _open(sampler: sampler_lib.Sampler, slot: int, tokens, new: int) -> None:
  sampler.open(
    slot,
    tokens,
    draw=0,
    member=slot,
    turn=0,
    temperature=1.0,
    limit_tokens=new,
  )


def pause() -> list[list[str]]:
  """Eight slots, of which seven decode while one reads."""
  shape = programs.shape_for(_LONG + 300, 8)
  sampler, params = common.sampler(shape), common.initial_params()
  ids = np.random.default_rng(0).integers(0, 256, _LONG + 32).tolist()
  usual = feeding._CALLS

  def play(calls: int) -> tuple[float, float]:
    feeding._CALLS = calls
    sampler.load(params, 0)
    for slot in range(8):
      _open(sampler, slot, ids[slot : 32 + slot], 8 if slot == 7 else _NEW)
    longest, asked, answered = 0.0, 0.0, 0.0
    while sampler.num_active and not answered:
      began = time.perf_counter()
      ended = [generated.slot for generated in sampler.tick()]
      if asked:
        longest = max(longest, time.perf_counter() - began)
      if 7 in ended and asked:
        answered = time.perf_counter()
      elif 7 in ended:
        sampler.extend(7, ids[32:], turn=1, limit_tokens=8)
        asked = time.perf_counter()
    feeding._CALLS = usual
    return 1e3 * longest, 1e3 * (answered - asked)

  found = _in_turns(
    {
      'at once': lambda: play(10**6),
      f'at most {usual} calls': lambda: play(usual),
    }
  )
  return [
    [name, *(f'{common.median(column):.0f}' for column in zip(*values))]
    for name, values in found.items()
  ]


class _Forgetful:
  """A sampler that keeps no caches of what it played."""

  def __init__(self, sampler: sampler_lib.Sampler):
    self._sampler = sampler

  def __getattr__(self, name: str) -> Any:
    return getattr(self._sampler, name)

  def holds(self, parked: Any) -> bool:
    """Nothing."""
    del parked
    return False


def _world(environment: Any, turns: int, segment_tokens: int) -> rollout.World:
  limits = rollout.Limits(
    turns=turns, action_tokens=_ACTION, segment_tokens=segment_tokens
  )
  return common.world(environment, limits)


def forks() -> list[list[str]]:
  """Four tasks, 6 turns with observations of about 60 tokens."""
  segment = 32 + _TURNS * (_ACTION + 64)
  plain, workers = common.sampler(programs.shape_for(segment, 32)), 2
  environment = common.Talk(turns=_TURNS, answer='o' * 40)
  world = _world(environment, _TURNS, segment)
  pool = rollout.Workers(workers)
  params = common.initial_params()
  kinds = {
    'VinePPO, 4 rollouts a turn': (recipe_lib.Probes(rollouts=4), 2),
    'Tree-GRPO': (pages.load('tree_grpo')().branch, 8),
  }

  def play(sampler: Any, branch: Any, size: int) -> tuple[float, int]:
    plain.load(params, 0)
    before = plain.prefilled_tokens
    began = time.perf_counter()
    branching.grow(
      lambda asked, builders: rollout.collect(
        sampler,
        world,
        asked,
        temperature=1.0,
        workers=pool,
        builders=builders,
      ),
      branch,
      [
        drawing.Draw(place, task, place)
        for place, task in enumerate(common.tasks(4))
      ],
      group_size=size,
      world=world,
    )
    return time.perf_counter() - began, plain.prefilled_tokens - before

  runs: dict[str, Callable[[], Any]] = {
    f'{name}: {kept}': functools.partial(play, sampler, branch, size)
    for name, (branch, size) in kinds.items()
    for kept, sampler in (('read', _Forgetful(plain)), ('copied', plain))
  }
  rows = []
  for name, values in _in_turns(runs).items():
    seconds, read = zip(*values)
    rows.append(
      [
        name,
        f'{1e3 * common.median(seconds):.0f}',
        f'{statistics.mean(read):,.0f}',
      ]
    )
  return rows


def slow() -> list[list[str]]:
  """64 episodes of 3 turns in 16 slots."""
  segment = 32 + 3 * (_ACTION + 64)
  shape, params = programs.shape_for(segment, 16), common.initial_params()
  sampler, workers = common.sampler(shape), rollout.Workers(64)
  parked: dict[str, list[int]] = {}

  usual = feeding._CALLS

  def play(name: str, limit: int, most_seconds: float, calls=usual) -> float:
    feeding._CALLS = calls
    world = _world(
      Varying(turns=3, most_seconds=most_seconds, answer='o' * 24), 3, segment
    )
    sampler.load(params, 0)
    sampler.limit_parked = limit
    before = workers.parked
    asked = [
      rollout.Request(draw, task, member)
      for draw, task in enumerate(common.tasks(8))
      for member in range(8)
    ]
    began = time.perf_counter()
    rollout.collect(sampler, world, asked, temperature=1.0, workers=workers)
    seconds = time.perf_counter() - began
    feeding._CALLS = usual
    parked.setdefault(name, []).append(workers.parked - before)
    return seconds

  delay = _DELAY.value / 1e3
  kinds: dict[str, tuple[Any, ...]] = {
    'no delay': (16, 0.0),
    'no delay, all fed at once': (16, 0.0, 10**6),
    'delay, none parked': (0, delay),
    'delay, up to 16 parked': (16, delay),
    'delay, up to 48 parked': (48, delay),
  }
  found = _in_turns(
    {name: functools.partial(play, name, *kind) for name, kind in kinds.items()}
  )
  base = common.median(found['no delay'])
  return [
    [
      name,
      f'{1e3 * common.median(seconds):.0f}',
      f'{base / common.median(seconds):.0%}',
      f'{statistics.mean(parked[name]):.0f}',
    ]
    for name, seconds in found.items()
  ]


def capacity() -> list[list[str]]:
  """Four slots; 16 steps from 96 tokens on."""
  params = common.initial_params()
  small, large = programs.shape_for(496, 4), programs.shape_for(8176, 4)
  shapes = {
    '512': small,
    '8,192 in 8 blocks': large,
    '2,048 in blocks of 128': large._replace(capacity=2048, cache_block=128),
  }

  def step(sampler: sampler_lib.Sampler) -> float:
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, 256, (4, 96)).tolist()
    for slot in range(4):
      _open(sampler, slot, prompts[slot], 16)
    feeding.feed(sampler._slots, sampler._store, sampler.shape)
    jax.block_until_ready(sampler._store.caches)
    began = time.perf_counter()
    assert len(sampler.tick()) == 4
    return 1e3 * (time.perf_counter() - began) / 16

  runs: dict[str, Callable[[], Any]] = {}
  for name, shape in shapes.items():
    sampler = common.sampler(shape)
    sampler.load(params, 0)
    runs[name] = functools.partial(step, sampler)
  return [
    [
      f'{name} (block of {shapes[name].cache_block})',
      f'{common.median(values):.2f}',
    ]
    for name, values in _in_turns(runs).items()
  ]


def lengths() -> list[list[str]]:
  """32 slots of 2,048 positions in blocks of 256; 16 steps."""
  params, shape = common.initial_params(), programs.shape_for(2032, 32)
  sampler = common.sampler(shape)
  ids = np.random.default_rng(0).integers(0, 256, _LONG).tolist()

  def step(long_slots: int) -> float:
    sampler.load(params, 0)
    for slot in range(32):
      long = slot < long_slots
      _open(sampler, slot, ids[: 1900 if long else 96], 16)
    feeding.feed(sampler._slots, sampler._store, sampler.shape)
    jax.block_until_ready(sampler._store.caches)
    began = time.perf_counter()
    assert len(sampler.tick()) == 32
    return 1e3 * (time.perf_counter() - began) / 16

  kinds = {'all of 100 tokens': 0, 'one of 1,900': 1, 'all of 1,900': 32}
  runs = {name: functools.partial(step, n) for name, n in kinds.items()}
  return [
    [name, f'{common.median(values):.2f}']
    for name, values in _in_turns(runs).items()
  ]


def memory() -> list[list[str]]:
  """Of the model of these benchmarks, 32 slots of 512 tokens."""
  config, shape = common.config(), programs.shape_for(496, 32)
  found = budget.of_slots(config, shape)
  arrays = jax.tree.leaves(programs.empty_caches(config, shape))
  taken = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
  return [
    [budget.describe(config, shape, found), ''],
    ['caches that were allocated', budget.show(taken)],
  ]


_HEADERS = {
  'pause': ['2,000 tokens are fed', 'pause, ms', 'until answered, ms'],
  'forks': ['forks', 'ms', 'tokens read'],
  'slow': ['64 episodes in 16 slots', 'ms', 'of no delay', 'times parked'],
  'capacity': ['capacity of a slot', 'ms a step at 100 tokens'],
  'lengths': ['32 slots of 2,048', 'ms a step'],
  'memory': ['memory', ''],
}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  record: dict[str, Any] = {'machine': common.machine()}
  for name, header in _HEADERS.items():
    if _ONLY.value and name not in _ONLY.value:
      continue
    rows = globals()[name]()
    print('\n' + common.table(header, rows), flush=True)
    record[name] = {row[0]: dict(zip(header[1:], row[1:])) for row in rows}
  common.save(_OUTPUT.value, record)


if __name__ == '__main__':
  app.run(main)
