"""How fast episodes of several turns are played, and what slow worlds cost.

Episodes have 3 or 20 turns: prompts of 32 tokens, actions of exactly 8 tokens,
and observations of 40 tokens after all but the last. 4 tasks x 8 members play
in 32 slots, in a world that answers after 0, 5 or 50 ms, or after anything
between 0 and 200 ms, evenly spread, with a thread for every slot. They are
compared with single turns of as many new tokens (24 or 160) in the same slots
with the same parameters; both are `rollout.collect`, whole.

Two rates are given, because turns bring tokens that are read and not sampled:
sampled tokens a second, and all tokens (prompts once a group, actions,
observations) a second.

A slow world is compared with what perfect overlap would give. No schedule is
faster than either bound:

  ideal = max(T, D + L)

T is the time of the batch without delay: all its computing. D is the sum of the
delays of the episode that waits longest. L is the time of one episode alone in
the same program, without delay: the computing on the way of a single episode.
The share reached is the median over batches of ideal / measured.

Peers: the agentic learner of google-tunix on its own engine (3 turns), and the
tool path of TRL's GRPOTrainer (an `environment_factory`, no delay); what
differs is said in peers/tunix_agentic.py and peers/trl_tools.py. The last
columns are theirs, in sampled tokens a second, and how many times faster ours
is, which is also the ratio of episodes a second.

Nothing may compile after the first round. Each takes 3 to 5 minutes:

  python benchmarks/rollout.py --tunix_python=PATH
  python benchmarks/rollout.py --delays_ms=0 --trl_python=PATH
"""

from collections.abc import Callable
import functools
import random
import time
from typing import NamedTuple

from absl import app
from absl import flags

from agentic_jax import rollout
from agentic_jax import train
from agentic_jax import types
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from benchmarks import common

_TUNIX = flags.DEFINE_string(
  'tunix_python', '', 'The Python with google-tunix; without it tunix is out.'
)
_TRL = flags.DEFINE_string(
  'trl_python', '', 'The Python with TRL; without it TRL is out.'
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Batches of each kind; the median counts.', lower_bound=1
)
_PEER_REPEATS = flags.DEFINE_integer(
  'peer_repeats', 2, 'Batches of a peer, of each kind.', lower_bound=1
)
_TURNS = flags.DEFINE_list('turns', ['3', '20'], 'Of an episode.')
_DELAYS = flags.DEFINE_list(
  'delays_ms',
  ['0', '5', '50', '0-200'],
  'What the world takes to answer, or the ends of a range.',
)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

TUNIX_TURNS = 3  # The peer's script plays these.
_EPISODES = common.GROUPS * common.GROUP_SIZE


def delay_of(delay_ms: str) -> Callable[[int], float]:
  """Seconds that the step of a seed takes, for an entry of --delays_ms."""
  first, _, last = delay_ms.partition('-')
  low, high = float(first) / 1e3, float(last or first) / 1e3
  return lambda seed: random.Random(seed).uniform(low, high)


def talk(turns: int, new: int, delay_ms: str) -> rollout.World:
  """The world: actions of `new` tokens, observations of OBSERVATION."""
  tags = len(common.TOKENIZER.observation(''))
  environment = common.Talk(
    turns=turns,
    delay_seconds=delay_of(delay_ms),
    answer='o' * (common.OBSERVATION - tags),
  )
  limits = rollout.Limits(
    turns=turns,
    action_tokens=new,
    segment_tokens=common.segment_tokens(turns, new),
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


class Batch(NamedTuple):
  """A batch that was played."""

  requests: list[rollout.Request]
  episodes: list[types.Episode]
  seconds: float


class Player:
  """Plays batches in one sampler and times them."""

  def __init__(self, shape: programs.Shape):
    self._sampler: sampler_lib.Sampler = common.sampler(shape)
    self._params = common.initial_params()
    self._workers = rollout.Workers(shape.slots)
    self._draw = 0

  def play(self, world: rollout.World, groups: int, members: int) -> Batch:
    """A new batch. No prompt lies in the cache beforehand."""
    self._sampler.load(self._params, 0)
    asked = requests(self._draw, groups, members)
    self._draw += groups
    start = time.perf_counter()
    episodes = rollout.collect(
      self._sampler, world, asked, temperature=1.0, workers=self._workers
    )
    return Batch(asked, episodes, time.perf_counter() - start)

  def seconds(
    self, world: rollout.World, *, groups: int, members: int
  ) -> float:
    """Plays a batch, checks the lengths and gives its seconds."""
    return checked(world, self.play(world, groups, members)).seconds


def checked(world: rollout.World, batch: Batch) -> Batch:
  """The batch, whose episodes ended well and have the length they should."""
  for episode in batch.episodes:
    assert not episode.failure, episode.detail
    assert len(episode.segments[0].tokens) == world.limits.segment_tokens
  return batch


def longest_wait(world: rollout.World, delay_ms: str, batch: Batch) -> float:
  """Seconds that the episode which waits longest waits."""
  delay = delay_of(delay_ms)
  turns = range(world.limits.turns)
  seed = lambda request, turn: rollout.derive_seed(
    world.seed, request.draw, request.member, turn
  )
  return max(
    sum(delay(seed(request, turn)) for turn in turns)
    for request in batch.requests
  )


class Slow:
  """Plays a batch in a slow world, and remembers how long it had to wait."""

  def __init__(self, player: Player, turns: int, delay_ms: str):
    self._player, self._delay = player, delay_ms
    self._world = talk(turns, common.ACTION, delay_ms)
    self.waits: list[float] = []

  def __call__(self) -> float:
    batch = self._player.play(self._world, common.GROUPS, common.GROUP_SIZE)
    self.waits.append(longest_wait(self._world, self._delay, batch))
    return checked(self._world, batch).seconds


def ours(turns: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
  """Seconds by what was played, and longest waits by delay."""
  new = turns * common.ACTION
  single = talk(1, new, '0')
  shape = programs.shape_for(
    common.segment_tokens(turns, common.ACTION), _EPISODES
  )
  player = Player(shape)
  whole = dict(groups=common.GROUPS, members=common.GROUP_SIZE)
  slow = {delay: Slow(player, turns, delay) for delay in _DELAYS.value}
  alone = talk(turns, common.ACTION, '0')
  play = functools.partial
  found = common.turn_about(
    {
      'single turn': play(player.seconds, single, **whole),
      'one episode': play(player.seconds, alone, groups=1, members=1),
      **{f'{delay} ms': run for delay, run in slow.items()},
    },
    _REPEATS.value,
  )
  return found, {delay: run.waits[1:] for delay, run in slow.items()}


def tokens_of(turns: int, new: int) -> tuple[int, int]:
  """Sampled tokens, and all tokens, of a batch."""
  sampled = _EPISODES * new
  read = common.GROUPS * common.PROMPT_TOKENS
  read += _EPISODES * (turns - 1) * common.OBSERVATION
  return sampled, sampled + read


def peers(turns: int) -> dict[str, dict[str, float]]:
  """Sampled tokens a second, by delay and who."""
  found: dict[str, dict[str, float]] = {}
  repeats = f'--repeats={_PEER_REPEATS.value}'
  if _TRL.value:
    record = common.run_peer(
      _TRL.value, 'trl_tools.py', f'--turns={turns}', repeats
    )
    rate = common.median(record['tokens_per_second'])
    found.setdefault('0', {})['trl'] = rate
  fixed = [delay for delay in _DELAYS.value if '-' not in delay]
  for delay in fixed if _TUNIX.value and turns == TUNIX_TURNS else ():
    seconds = float(delay) / 1e3
    record = common.run_peer(
      _TUNIX.value, 'tunix_agentic.py', repeats, f'--delay_seconds={seconds}'
    )
    rate = record['sampled_tokens'] / common.median(record['seconds'])
    found.setdefault(delay, {})['tunix'] = rate
  return found


def judge(turns: int) -> dict[str, dict[str, float]]:
  """The numbers of one length of episode, by what was played."""
  found, waits = ours(turns)
  theirs = peers(turns)
  computing = common.median(found['0 ms'])
  alone = common.median(found['one episode'])
  rates = lambda counts, seconds: [n / seconds for n in counts]
  base = rates(
    tokens_of(1, turns * common.ACTION), common.median(found['single turn'])
  )
  numbers = {
    f'single turn of {turns * common.ACTION}': {
      'ms': 1e3 * common.median(found['single turn']),
      'sampled/s': base[0],
      'all/s': base[1],
    }
  }
  for delay in _DELAYS.value:
    seconds = found[f'{delay} ms']
    median = common.median(seconds)
    now = rates(tokens_of(turns, turns * common.ACTION), median)
    ideals = [max(computing, wait + alone) for wait in waits[delay]]
    row = {
      'ms': 1e3 * median,
      'sampled/s': now[0],
      'all/s': now[1],
      'of single': now[0] / base[0],
      'of single, all': now[1] / base[1],
      'of ideal': common.median(
        [ideal / took for ideal, took in zip(ideals, seconds, strict=True)]
      ),
    }
    for who, rate in theirs.get(delay, {}).items():
      row |= {f'{who}, sampled/s': rate, f'times {who}': now[0] / rate}
    numbers[f'{turns} turns, {delay} ms'] = row
  return numbers


def show(numbers: dict[str, dict[str, float]]) -> None:
  """Prints the table."""
  header = list(dict.fromkeys(key for row in numbers.values() for key in row))

  def cell(row, key):
    if key not in row:
      return ''
    style = '{:.0%}' if key.startswith('of ') else '{:,.0f}'
    return ('{:.1f}' if key.startswith('times') else style).format(row[key])

  rows = [
    [name, *(cell(row, key) for key in header)] for name, row in numbers.items()
  ]
  print('\n' + common.table(['', *header], rows), flush=True)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  if '0' not in _DELAYS.value:
    raise app.UsageError('--delays_ms must hold 0: the others refer to it.')
  train.keep_freed_memory()
  numbers: dict[str, dict[str, float]] = {}
  for turns in map(int, _TURNS.value):
    numbers |= judge(turns)
  show(numbers)
  record = {'machine': common.machine(), 'numbers': numbers}
  common.save(_OUTPUT.value, record)


if __name__ == '__main__':
  app.run(main)
