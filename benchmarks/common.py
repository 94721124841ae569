"""What the benchmarks share.

The policy, a world in which it may say anything, peers in processes of their
own, and how seconds become a table.
"""

from collections.abc import Callable, Mapping, Sequence
import itertools
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import context
from agentic_jax import metrics
from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib

VOCABULARY = 512
PROMPT_TOKENS = 32
GROUPS, GROUP_SIZE = 4, 8
ACTION, OBSERVATION = 8, 40  # Tokens, of episodes of several turns.
TOKENIZER = tokenizer.ByteTokenizer()

_PEERS = pathlib.Path(__file__).parent / 'peers'


class TalkState(NamedTuple):
  """How often the policy has spoken."""

  turn: int = 0


class Talk:
  """Pays for the letter e, and answers every action with the same text."""

  observability = 'full'

  def __init__(
    self,
    *,
    turns: int = 1,
    delay_seconds: Callable[[int], float] = lambda seed: 0.0,
    answer: str = '',
  ):
    """Makes the world.

    Args:
      turns: of an episode.
      delay_seconds: how long the step of a seed takes. A reset takes no time.
      answer: the observation after an action.
    """
    self._turns = turns
    self._delay_seconds = delay_seconds
    self._answer = answer

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The prompt."""
    del seed
    return types.Transition(TalkState(), types.Observation(task.prompt))

  def step(self, state: TalkState, action: str, seed: int) -> types.Transition:
    """The answer, after the delay."""
    delay = self._delay_seconds(seed)
    if delay:
      time.sleep(delay)
    turn = state.turn + 1
    return types.Transition(
      TalkState(turn),
      types.Observation(self._answer),
      {'final': float(action.count('e'))},
      terminated=turn >= self._turns,
    )


def config(**settings: Any) -> config_lib.TransformerConfig:
  """The policy's shape: 3.28M parameters."""
  return sizes.load('bench', VOCABULARY, **settings)


def tasks(count: int) -> list[types.Task]:
  """Tasks whose prompts have PROMPT_TOKENS tokens, no two alike."""
  text = 'the quick brown fox jumps over'
  size = PROMPT_TOKENS - len(TOKENIZER.prompt(''))
  return [types.Task(i, f'{i:03d} {text}'[:size]) for i in range(count)]


def segment_tokens(turns: int, new: int) -> int:
  """Of an episode with actions of `new` tokens, and with its prompt."""
  return PROMPT_TOKENS + turns * new + (turns - 1) * OBSERVATION


def world(environment: Talk, limits: rollout.Limits) -> rollout.World:
  """The world of bytes around an environment."""
  grammar = protocol.Grammar()
  return rollout.World(
    environment, TOKENIZER, grammar, context.append_all, limits, seed=0
  )


def sampler(shape: programs.Shape) -> sampler_lib.Sampler:
  """A sampler that only a limit stops, so that lengths are fixed."""
  return sampler_lib.Sampler(config(), shape, stop_ids=(), seed=0)


def initial_params() -> Any:
  """Fresh parameters in the training layout."""
  return transformer.init(config(), jax.random.key(0))


def seconds_of(
  run: Callable[[], Any], repeats: int, *, limit_seconds: float = math.inf
) -> list[float]:
  """How long calls of `run` take, after one to warm up.

  What `run` returns is waited for. No call is begun after `limit_seconds`, but
  the first.
  """
  jax.block_until_ready(run())
  found: list[float] = []
  while len(found) < repeats and (not found or sum(found) < limit_seconds):
    start = time.perf_counter()
    jax.block_until_ready(run())
    found.append(time.perf_counter() - start)
  return found


def turn_about(
  runs: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
  """What each run gives, turn about, so that all see the same machine.

  Args:
    runs: by name; each gives the seconds of what counts of it.
    repeats: rounds, after one that warms up.

  Raises:
    AssertionError: something compiled after the first round.
  """
  found: dict[str, list[float]] = {name: [] for name in runs}
  for run in runs.values():
    run()
  with metrics.CompileCounter() as compilations:
    for _ in range(repeats):
      for name, run in runs.items():
        found[name].append(run())
    assert not compilations.names, compilations.names
  return found


def timed(run: Callable[[], Any]) -> Callable[[], float]:
  """A function that calls `run`, waits for the result and gives the seconds."""

  def seconds() -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began

  return seconds


def decoding(
  sampler: sampler_lib.Sampler, vocab_size: int, new: int
) -> Callable[[], float]:
  """A function that times a whole call: prompts in, `new` tokens each out.

  Args:
    sampler: with parameters loaded; every slot gets a prompt.
    vocab_size: random prompts are of all tokens; no two are alike.
    new: tokens of an answer.
  """
  rng, draws = np.random.default_rng(0), itertools.count()
  size = sampler.shape.slots

  def seconds() -> float:
    prompts = rng.integers(0, vocab_size, (size, PROMPT_TOKENS)).tolist()
    draw, done = next(draws), []
    began = time.perf_counter()
    for slot, tokens in enumerate(prompts):
      sampler.open(
        slot,
        tokens,
        draw=draw,
        member=slot,
        turn=0,
        temperature=1.0,
        limit_tokens=new,
      )
    while sampler.num_active:
      done += sampler.tick()
    took = time.perf_counter() - began
    assert [len(g.tokens) for g in done] == [new] * size
    return took

  return seconds


def matmul_rate(repeats: int, dtype: str = 'float32') -> float:
  """The best rate of a product of 2048-cubed, in FLOP/s."""
  size = 2048
  x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), dtype)
  multiply = jax.jit(jnp.matmul)
  return 2 * size**3 / min(seconds_of(lambda: multiply(x, x), repeats))


def torch_device() -> str:
  """Where a peer in torch runs, so that it is what JAX runs on."""
  return 'cuda' if jax.default_backend() == 'gpu' else 'cpu'


def run_peer(python: str, script: str, *arguments: str) -> dict[str, Any]:
  """What a script in peers/ measures, run by the Python of its environment.

  A peer that is killed by a signal (tunix's threads now and then end in a
  segmentation fault) gets one more try.

  Args:
    python: path of that Python.
    script: name of the file.
    *arguments: its flags.

  Raises:
    RuntimeError: the script failed; holds the end of what it said.
  """
  command = [python, str(_PEERS / script), *arguments]
  for _ in range(2):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode >= 0:
      break
    print(f'{script} was killed by signal {-done.returncode}.', flush=True)
  if done.returncode or not lines:
    raise RuntimeError(
      f'{" ".join(command)} ended with {done.returncode}; make its environment '
      f'as benchmarks/README.md says. It said: {done.stderr[-2000:]}'
    )
  return json.loads(lines[-1])


def merge(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Joins the records of several rounds; only lists of seconds grow."""
  first = records[0]
  merged: dict[str, Any] = {}
  for key, value in first.items():
    column = [record[key] for record in records]
    if isinstance(value, Mapping):
      merged[key] = merge(column)
    elif isinstance(value, list):
      merged[key] = [x for part in column for x in part]
    else:
      merged[key] = value
  return merged


def median(seconds: Sequence[float]) -> float:
  """The median of one measurement's repetitions."""
  return statistics.median(seconds)


def fit(
  x: Sequence[float], y: Sequence[float], degree: int
) -> tuple[np.ndarray, float]:
  """A polynomial through points, by least squares of the relative error.

    y = w_0 + w_1 x + ... + w_degree x^degree

  Args:
    x: more than `degree` different numbers.
    y: as many, positive.
    degree: of the polynomial.

  Returns:
    w [degree + 1], and R^2 of the line as it is drawn: 1 - squared error /
    squared deviation of y from its mean.
  """
  powers = np.asarray(x, float)[:, None] ** np.arange(degree + 1)
  wanted, scale = np.asarray(y, float), powers.max(axis=0)
  weighted = powers / scale / wanted[:, None]
  w = np.linalg.lstsq(weighted, np.ones_like(wanted), rcond=None)[0] / scale
  error = np.sum((powers @ w - wanted) ** 2)
  return w, float(1 - error / np.sum((wanted - wanted.mean()) ** 2))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Text columns, the first to the left and the others to the right."""
  cells = [[str(cell) for cell in row] for row in (header, *rows)]
  widths = [max(map(len, column)) for column in zip(*cells)]
  lines = []
  for row in cells:
    rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
    lines.append('  '.join([row[0].ljust(widths[0]), *rest]))
  return '\n'.join(lines)


def machine() -> dict[str, Any]:
  """What the numbers were measured on."""
  return {
    'processor': platform.processor() or platform.machine(),
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'jax': jax.__version__,
    'date': time.strftime('%Y-%m-%d'),
  }


def save(path: str, record: Mapping[str, Any]) -> None:
  """Writes a record as JSON, if there is a path."""
  if path:
    pathlib.Path(path).write_text(json.dumps(record, indent=2) + '\n')
