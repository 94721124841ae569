"""What an episode costs by its turns: linear in its tokens, or not.

4 episodes are played in 4 slots, with a prompt of 32 tokens and turns of 8
sampled tokens and an observation of 40, as in benchmarks/rollout.py: 1, 3, 10,
20, 50 and 100 turns, 4,792 tokens at most. Each length is played two ways, turn
about, in the same slots by the same programs:

  kept       the slots keep their caches: only the observation is prefilled
  prefilled  every turn opens its slot anew with all tokens so far, as engines
             do that answer one request a turn and keep nothing between them; up
             to 50 turns, by our prefill, in chunks of 16 tokens

Two curves go through the medians, by least squares of the relative error:
seconds = a + b n, and a + b n + c n^2, n being an episode's tokens. Printed are
R^2 of the line, and the share of the longest episode's seconds that the square
takes in the second. Attention of a token costs more the more tokens are before
it, so the square is never quite 0.

Nothing may compile after the first round. It takes 2 to 4 minutes:

  python benchmarks/turns.py --picture=docs/turns.svg
"""

from collections.abc import Callable, Sequence
import functools
import itertools
import pathlib
import time

from absl import app
from absl import flags
import numpy as np

from agentic_jax import train
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from benchmarks import common
from benchmarks import drawing

_TURNS = flags.DEFINE_list(
  'turns', ['1', '3', '10', '20', '50', '100'], 'Of an episode, rising.'
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 3, 'Batches of each kind; the median counts.', lower_bound=1
)
_PICTURE = flags.DEFINE_string('picture', '', 'Where to write an SVG.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

EPISODES = 4
MOST_PREFILLED = 50  # Turns.
_ASK = dict(temperature=1.0, limit_tokens=common.ACTION)


def kept(sampler: sampler_lib.Sampler, turns: int, draw: int) -> int:
  """Plays episodes whose caches stay; returns the tokens of each."""
  return _play(sampler, turns, draw, anew=False)


def prefilled(sampler: sampler_lib.Sampler, turns: int, draw: int) -> int:
  """Plays episodes that are prefilled at every turn; returns their tokens."""
  return _play(sampler, turns, draw, anew=True)


def _play(sampler, turns: int, draw: int, *, anew: bool) -> int:
  rng = np.random.default_rng(draw)
  some = lambda count: rng.integers(0, 256, (EPISODES, count)).tolist()
  told = some(common.PROMPT_TOKENS)
  observations = told
  for turn in range(turns):
    for slot in range(EPISODES):
      if turn and not anew:
        sampler.extend(
          slot,
          observations[slot],
          turn=turn,
          limit_tokens=common.ACTION,
        )
      else:
        sampler.open(
          slot, told[slot], draw=draw, member=slot, turn=turn, **_ASK
        )
    done = []
    while sampler.num_active:
      done += sampler.tick()
    assert len(done) == EPISODES
    observations = some(common.OBSERVATION)
    for generated in done:
      said = generated.tokens.tolist()
      assert len(said) == common.ACTION
      told[generated.slot] = told[generated.slot] + said
      if turn + 1 < turns:
        told[generated.slot] = (
          told[generated.slot] + observations[generated.slot]
        )
  return len(told[0])


def seconds_of(
  play: Callable[[sampler_lib.Sampler, int, int], int],
  sampler: sampler_lib.Sampler,
  turns: int,
  draws: itertools.count,
) -> float:
  """Seconds of a batch that was not played before."""
  began = time.perf_counter()
  tokens = play(sampler, turns, next(draws))
  took = time.perf_counter() - began
  assert tokens == common.segment_tokens(turns, common.ACTION)
  return took


def measure(turns: Sequence[int], repeats: int) -> dict[str, list[float]]:
  """Seconds of batches, by 'kept 3' and the like."""
  size = common.segment_tokens(max(turns), common.ACTION)
  sampler = common.sampler(programs.shape_for(size, EPISODES))
  sampler.load(common.initial_params(), 0)
  draws = itertools.count()
  return common.turn_about(
    {
      f'{play.__name__} {number}': functools.partial(
        seconds_of, play, sampler, number, draws
      )
      for number in turns
      for play in (kept, prefilled)
      if number <= MOST_PREFILLED or play is kept
    },
    repeats,
  )


def judge(turns: Sequence[int], found: dict[str, list[float]]) -> dict:
  """Medians and fits of the two ways."""
  numbers: dict[str, dict] = {}
  for way in ('kept', 'prefilled'):
    played = [number for number in turns if f'{way} {number}' in found]
    tokens = [common.segment_tokens(x, common.ACTION) for x in played]
    seconds = [common.median(found[f'{way} {number}']) for number in played]
    _, straight = common.fit(tokens, seconds, 1)
    w, _ = common.fit(tokens, seconds, 2)
    parts = w * float(tokens[-1]) ** np.arange(3)
    numbers[way] = {
      'turns': played,
      'tokens': tokens,
      'seconds': seconds,
      'R2 of the line': straight,
      'share of the square': float(parts[2] / parts.sum()),
    }
  return numbers


def show(numbers: dict) -> None:
  """Prints the table."""
  rows = []
  stay, again = numbers['kept'], numbers['prefilled']
  for i, (turns, tokens) in enumerate(
    zip(stay['turns'], stay['tokens'], strict=True)
  ):
    seconds = stay['seconds'][i]
    row = [str(turns), f'{tokens:,}', f'{seconds:.3f}']
    row.append(f'{1e6 * seconds / EPISODES / tokens:.0f}')
    if i < len(again['turns']):
      other = again['seconds'][i]
      row += [f'{other:.3f}', f'{other / seconds:.1f}']
    rows.append(row + [''] * (6 - len(row)))
  header = ['turns', 'tokens', 'kept, s', 'us/token', 'prefilled, s', 'times']
  print('\n' + common.table(header, rows))
  for way, found in numbers.items():
    print(
      f'{way}: R^2 of a line {found["R2 of the line"]:.4f}; of the longest '
      f'episode the square takes {found["share of the square"]:.0%}.',
      flush=True,
    )


def draw(path: str, numbers: dict) -> None:
  """Writes the picture: both ways beside each other."""
  titles = {
    'kept': 'Caches stay (dashed: linear)',
    'prefilled': 'Prefilled at every turn (dashed: linear)',
  }
  panels = [
    drawing.Panel(
      titles[way],
      'tokens of an episode',
      f'ms for {EPISODES} episodes',
      list(
        zip(found['tokens'], [1e3 * x for x in found['seconds']], strict=True)
      ),
      guide=1.0,
    )
    for way, found in numbers.items()
  ]
  pathlib.Path(path).write_text(drawing.svg(panels))
  print(f'Drawn in {path}.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  turns = [int(number) for number in _TURNS.value]
  found = measure(turns, _REPEATS.value)
  numbers = judge(turns, found)
  show(numbers)
  if _PICTURE.value:
    draw(_PICTURE.value, numbers)
  common.save(
    _OUTPUT.value,
    {'machine': common.machine(), 'numbers': numbers, 'seconds': found},
  )


if __name__ == '__main__':
  app.run(main)
