"""Half an hour of troubled worlds: is memory flat, is the ledger exact?

Batches of episodes in processes that raise, hang, answer garbage, are slow, and
are killed from outside every few seconds; every fiftieth batch the source is
made anew from its position, as a restart does. After every batch the ledger is
held against a count of our own and against the tasks drawn. At the end the
slope of this process's resident memory after the first third, in a line of
least squares, must be below --growth, and neither threads nor open files may
have grown.

Linux only: memory is read from /proc. Prints one line.

Command: python benchmarks/soak.py --minutes=30
"""

import json
import os
import pathlib
import random
import signal
import threading
import time
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jax
import numpy as np

from agentic_jax import context
from agentic_jax import environments
from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import tasks
from agentic_jax import tokenizer
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.rollout import counting
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import pool

_MINUTES = flags.DEFINE_float('minutes', 30.0, 'How long.')
_LIMIT = flags.DEFINE_float('growth', 1.0, 'Growth of memory, MiB a minute.')
_WORKERS = flags.DEFINE_integer('processes', 4, 'Of environments.')
_KILL = flags.DEFINE_float('kill_seconds', 5.0, 'Between two killings.')

_GROUPS, _GROUP_SIZE, _RESTART = 8, 4, 50
_WORLD = f'{pathlib.Path(__file__).parent / "soak_world.py"}:Troubled'
_LIMITS = rollout.Limits(
  turns=4,
  action_tokens=8,
  segment_tokens=100,
  environment_seconds=2.0,
  failed_share=1.0,
)


class Soak:
  """A source, and what it is checked against."""

  def __init__(self) -> None:
    """Starts the processes; compiles nothing yet."""
    words = tokenizer.ByteTokenizer()
    config = sizes.load('toy', words.vocab_size, layers=1)
    here = environments.load(_WORLD)
    self._world = rollout.World(
      rollout.hosted(
        here,
        'process',
        _WORKERS.value,
        _WORLD,
        {},
        _LIMITS.environment_seconds,
      ),
      words,
      protocol.Grammar(),
      context.append_all,
      _LIMITS,
      seed=0,
    )
    self._params = transformer.init(config, jax.random.key(0))
    self._sampler = sampler_lib.Sampler(
      config,
      programs.shape_for(_LIMITS.segment_tokens, _GROUPS * _GROUP_SIZE),
      stop_ids=tuple(range(4, 256, 9)),
      seed=0,
    )
    self._workers = rollout.Workers(_WORKERS.value)
    self._source, self._pool = self._made()
    self.batches, self.episodes, self.killed = 0, 0, 0
    self.failures = dict.fromkeys(('raised', 'hung', 'garbage'), 0)
    self._finished = self._lost = 0
    self.ledger = counting.Ledger()

  def _made(self) -> tuple[rollout.Rollouts, pool.Pool]:
    drawn = pool.Pool(list(tasks.load('corridor', 'train')), seed=0)
    source = rollout.Rollouts(
      self._sampler,
      self._world,
      drawn,
      self._workers,
      tasks_per_step=_GROUPS,
      group_size=_GROUP_SIZE,
      temperature=1.0,
      # Not where three of four episodes are whole; each has four turns.
      keep=lambda turns: np.asarray(turns.mask).sum() // 4 % 3 > 0,
    )
    return source, drawn

  def batch(self) -> None:
    """Plays a batch and holds the ledger against what came of it.

    Raises:
      AssertionError: it does not add up.
    """
    if self.batches % _RESTART == _RESTART - 1:
      told = json.loads(json.dumps(self._source.position()))
      self._source, self._pool = self._made()
      self._source.restore(told)
    found = self._source.batch(self.batches, self._params)
    self.batches += 1
    self._count(found)
    self.ledger = counting.Ledger(
      *(int(found.metrics[f'ledger/{k}']) for k in counting.Ledger._fields)
    )
    seen, finished, rejected, failed = self.ledger
    drawn = self._pool.position()['draw']
    assert seen == drawn == finished + rejected + failed, (self.ledger, drawn)
    assert finished == self._finished, (self.ledger, self._finished)
    assert failed >= self._lost, (self.ledger, self._lost)

  def _count(self, found: Any) -> None:
    """Our own count of groups, by their episodes."""
    groups: dict[int, list[bool]] = {}
    for episode in found.episodes:
      groups.setdefault(episode.draw, []).append(bool(episode.failure))
    lost = sum(map(all, groups.values()))
    self._finished += len(groups) - lost
    self._lost += lost
    self.episodes += int(found.metrics['rollout/episodes'])
    for kind in self.failures:
      self.failures[kind] += int(found.metrics[f'rollout/failures_{kind}'])


def resident_mib() -> float:
  """Memory of this process that is resident, in MiB."""
  text = pathlib.Path('/proc/self/status').read_text()
  line = next(x for x in text.splitlines() if x.startswith('VmRSS'))
  return int(line.split()[1]) / 1024


def children() -> list[int]:
  """Process numbers of the environments' processes, which we started."""
  own = os.getpid()
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:  # It has ended meanwhile.
      continue
    if int(fields[1]) == own and fields[0] != 'Z':
      found.append(int(path.parent.name))
  return sorted(found)


def slope(minutes: list[float], mib: list[float]) -> float:
  """Of a line of least squares, in MiB a minute."""
  return float(np.polyfit(minutes, mib, 1)[0])


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Wanted no arguments, got {argv[1:]}; use flags.')
  logging.set_verbosity(logging.ERROR)  # Deaths are what is wanted here.
  soak, chance = Soak(), random.Random(0)
  soak.batch()
  began = killed = time.monotonic()
  at: list[float] = []
  mib: list[float] = []
  held = None
  while (now := time.monotonic()) - began < 60 * _MINUTES.value:
    soak.batch()
    at.append((now - began) / 60)
    mib.append(resident_mib())
    if held is None and at[-1] > _MINUTES.value / 3:
      held = threading.active_count(), len(os.listdir('/proc/self/fd'))
    if now - killed > _KILL.value and children():
      os.kill(chance.choice(children()), signal.SIGKILL)
      soak.killed, killed = soak.killed + 1, now
  late = [i for i, minute in enumerate(at) if minute > _MINUTES.value / 3]
  grown = slope([at[i] for i in late], [mib[i] for i in late])
  now_held = threading.active_count(), len(os.listdir('/proc/self/fd'))
  print(
    f'{_MINUTES.value:g} minutes, {soak.batches} batches, {soak.episodes} '
    f'episodes, {soak.killed} processes killed, failures {soak.failures}: '
    f'{soak.ledger}; memory {mib[late[0]]:.0f} to {mib[-1]:.0f} MiB, '
    f'{grown:+.2f} MiB a minute (limit {_LIMIT.value:g}); threads and files '
    f'{held} to {now_held}',
    flush=True,
  )
  assert grown < _LIMIT.value, 'memory grows'
  assert held and all(b <= a + 8 for a, b in zip(held, now_held, strict=True))


if __name__ == '__main__':
  app.run(main)
