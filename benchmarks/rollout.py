"""How fast episodes of several turns are played, and what slow worlds cost.

Episodes have 3 turns: prompts of 32 tokens, actions of exactly 8 tokens, and
observations of 40 tokens after all but the last. 4 tasks x 8 members play in 32
slots, in a world that answers after 0, 5 or 50 ms, with a thread for every
slot. They are compared with single turns of 24 new tokens in the same slots
with the same parameters; both are `rollout.collect`, whole.

Two rates are given, because turns bring tokens that are read and not sampled:
sampled tokens a second, and all tokens (prompts once a group, actions,
observations) a second.

A slow world is compared with what perfect overlap would give. With a delay d,
no schedule is faster than either bound:

  ideal(d) = max(T, 3 d + L)

T is the time of the batch without delay: all its computing. L is the time of
one episode alone in the same program, without delay: the computing on the way
of a single episode. The share reached is ideal(d) / measured.

Against the agentic learner of google-tunix on its own engine, see
peers/tunix_agentic.py for what differs.

Command: python benchmarks/rollout.py --tunix_python=PATH
"""

from collections.abc import Callable
import time
from typing import Any

from absl import app
from absl import flags

from agentic_jax import rollout
from agentic_jax import train
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from benchmarks import common

_TUNIX = flags.DEFINE_string(
  'tunix_python', '', 'The Python with google-tunix; without it tunix is out.'
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 7, 'Batches of each kind; the median counts.', lower_bound=1
)
_PEER_REPEATS = flags.DEFINE_integer(
  'peer_repeats', 3, 'Batches of the peer at each delay.', lower_bound=1
)
_DELAYS = flags.DEFINE_list(
  'delays_ms', ['0', '5', '50'], 'What the world takes to answer.'
)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

TURNS, ACTION, OBSERVATION, SINGLE = 3, 8, 40, 24
_EPISODES = common.GROUPS * common.GROUP_SIZE
_SEGMENT = common.PROMPT_TOKENS + TURNS * ACTION + (TURNS - 1) * OBSERVATION


def talk(turns: int, delay_seconds: float) -> rollout.World:
  """The world, with observations of OBSERVATION tokens."""
  tags = len(common.TOKENIZER.observation(''))
  environment = common.Talk(
    turns=turns, delay_seconds=delay_seconds, answer='o' * (OBSERVATION - tags)
  )
  limits = rollout.Limits(
    turns=turns,
    action_tokens=ACTION if turns > 1 else SINGLE,
    segment_tokens=_SEGMENT,
  )
  return common.world(environment, limits)


def requests(draw: int, groups: int, members: int) -> list[rollout.Request]:
  """A batch that was not played before: its draws begin at `draw`."""
  tasks = common.tasks(groups)
  return [
    rollout.Request(draw + i, task, member)
    for i, task in enumerate(tasks)
    for member in range(members)
  ]


class Player:
  """Plays batches in one sampler and times them."""

  def __init__(self, sampler: sampler_lib.Sampler, params: Any):
    self._sampler = sampler
    self._params = params
    self._workers = rollout.Workers(_EPISODES)
    self._draw = 0

  def play(
    self, world: rollout.World, *, groups: int, members: int
  ) -> tuple[float, list]:
    """Seconds, and the episodes. No prompt lies in the cache beforehand."""
    self._sampler.load(self._params, 0)
    asked = requests(self._draw, groups, members)
    self._draw += groups
    start = time.perf_counter()
    episodes = rollout.collect(
      self._sampler, world, asked, temperature=1.0, workers=self._workers
    )
    return time.perf_counter() - start, episodes

  def seconds(
    self, world: rollout.World, *, members: int, groups: int
  ) -> Callable:
    """A function that plays one batch and gives its seconds, checked."""

    def run() -> float:
      seconds, episodes = self.play(world, groups=groups, members=members)
      turns = world.limits.turns
      new = turns * world.limits.action_tokens
      for episode in episodes:
        assert not episode.failure, episode.detail
        length = common.PROMPT_TOKENS + new + (turns - 1) * OBSERVATION
        assert len(episode.segments[0].tokens) == length
      return seconds

    return run


def ours() -> dict[str, list[float]]:
  """Seconds by what was played; kinds take turns, so that all see one machine.

  The first round compiles and does not count.
  """
  shape = programs.shape_for(_SEGMENT, _EPISODES)
  player = Player(common.sampler(shape), common.initial_params())
  whole = dict(groups=common.GROUPS, members=common.GROUP_SIZE)
  runs = {
    'single turn': player.seconds(talk(1, 0.0), **whole),
    'one episode': player.seconds(talk(TURNS, 0.0), groups=1, members=1),
  }
  for delay in _DELAYS.value:
    world = talk(TURNS, float(delay) / 1e3)
    runs[f'{delay} ms'] = player.seconds(world, **whole)
  for run in runs.values():
    run()
  found: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(_REPEATS.value):
    for name, run in runs.items():
      found[name].append(run())
  return found


def tokens_of(turns: int) -> tuple[int, int]:
  """Sampled tokens, and all tokens, of a batch."""
  sampled = _EPISODES * (turns * ACTION if turns > 1 else SINGLE)
  read = common.GROUPS * common.PROMPT_TOKENS
  read += _EPISODES * (turns - 1) * OBSERVATION
  return sampled, sampled + read


def ideal(found: dict[str, list[float]], delay_ms: float) -> float:
  """Seconds of perfect overlap; see the docstring of this file."""
  computing = common.median(found['0 ms'])
  alone = common.median(found['one episode'])
  return max(computing, TURNS * delay_ms / 1e3 + alone)


def show(found: dict[str, list[float]], peer: dict[str, Any]) -> dict[str, Any]:
  """Prints the table; returns its numbers."""
  single = common.median(found['single turn'])
  sampled, everything = tokens_of(1)
  base = sampled / single, everything / single
  rows = [
    ['single turn', f'{1e3 * single:.0f}', *(f'{x:,.0f}' for x in base)]
    + ['', '', '', '']
  ]
  numbers: dict[str, Any] = {
    'single turn': {'sampled per second': base[0], 'tokens per second': base[1]}
  }
  sampled, everything = tokens_of(TURNS)
  for delay in _DELAYS.value:
    seconds = common.median(found[f'{delay} ms'])
    rates = sampled / seconds, everything / seconds
    share = ideal(found, float(delay)) / seconds
    row = [f'{TURNS} turns, {delay} ms', f'{1e3 * seconds:.0f}']
    row += [f'{x:,.0f}' for x in rates]
    row += [f'{x / y:.0%}' for x, y in zip(rates, base)]
    row.append(f'{share:.0%}')
    numbers[f'{delay} ms'] = {
      'sampled per second': rates[0],
      'tokens per second': rates[1],
      'share of single turn, sampled': rates[0] / base[0],
      'share of single turn, all': rates[1] / base[1],
      'share of perfect overlap': share,
    }
    if delay in peer:
      theirs = peer[delay]['sampled_tokens'] / common.median(
        peer[delay]['seconds']
      )
      numbers[f'{delay} ms']['tunix sampled per second'] = theirs
      row.append(f'{theirs:,.0f} ({rates[0] / theirs:.1f})')
    else:
      row.append('')
    rows.append(row)
  header = ['', 'ms', 'sampled/s', 'all/s', 'of single', 'of single, all']
  header += ['of ideal', 'tunix sampled/s (ratio)']
  print('\n' + common.table(header, rows), flush=True)
  return numbers


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  if '0' not in _DELAYS.value:
    raise app.UsageError('--delays_ms must hold 0: the others refer to it.')
  train.keep_freed_memory()
  found = ours()
  peer = {}
  for delay in _DELAYS.value if _TUNIX.value else ():
    peer[delay] = common.run_peer(
      _TUNIX.value,
      'tunix_agentic.py',
      f'--repeats={_PEER_REPEATS.value}',
      f'--delay_seconds={float(delay) / 1e3}',
    )
  numbers = show(found, peer)
  common.save(
    _OUTPUT.value,
    {
      'machine': common.machine(),
      'numbers': numbers,
      'seconds': found,
      'peer': peer,
    },
  )


if __name__ == '__main__':
  app.run(main)
