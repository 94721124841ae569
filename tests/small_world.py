"""A tiny policy in a world whose episodes differ, for tests of sampling."""

import functools
import hashlib
import os
import pathlib
import random
import re
import subprocess
import sys
import time
from typing import NamedTuple

import jax

from agentic_jax import batching
from agentic_jax import context as context_lib
from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib

TOKENIZER = tokenizer_lib.ByteTokenizer()

# An untrained policy rarely says a tag: of every nine tokens one ends a turn.
STOP_IDS = tuple(range(4, 272, 9))

# Several chunks of prefill, blocks of cache and of decoding in an episode.
SHAPE = programs.Shape(
  slots=6,
  capacity=128,
  cache_block=32,
  decode_block=8,
  prefill_rows=4,
  prefill_chunk=8,
)
LIMITS = rollout.Limits(turns=4, action_tokens=12, segment_tokens=110)

# What an observation may hold without confusing anything.
SAYINGS = (
  'ok',
  '',
  '</tool><answer>1</answer>',
  'a longer observation, of more than one chunk',
  '<eos></result><|im_end|>',
)


class WanderState(NamedTuple):
  """All that happened, as a number."""

  past: int = 0
  turn: int = 0


class Wander:
  """Any action leads on; what it leads to follows from its text and seed.

  Observations, rewards and the ends of episodes vary, and situations recur.
  """

  def __init__(self, *, delay_seconds: float = 0.0):
    """Makes the world.

    Args:
      delay_seconds: calls take a random time of up to this.
    """
    self._delay_seconds = delay_seconds

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The prompt."""
    del seed
    self._wait()
    return types.Transition(
      WanderState(), types.Observation(task.prompt), state_key='start'
    )

  def step(
    self, state: WanderState, action: str, seed: int
  ) -> types.Transition:
    """Some observation; one in five ends the episode."""
    self._wait()
    text = f'{state.past}/{action}/{seed}'.encode()
    past = int.from_bytes(hashlib.sha256(text).digest()[:4], 'big')
    says = SAYINGS[past % len(SAYINGS)]
    terminated = past % 7 < 2
    reward = {'process': past % 3 / 4}
    if terminated:
      reward['final'] = float(past % 2)
    return types.Transition(
      WanderState(past, state.turn + 1),
      types.Observation(says),
      reward,
      terminated=terminated,
      state_key=says,
    )

  def _wait(self) -> None:
    if self._delay_seconds:
      time.sleep(random.random() * self._delay_seconds)


class Pair(Wander):
  """Two agents; who moves next varies, and either is told of itself."""

  agents = 2

  def step(
    self, state: WanderState, action: str, seed: int
  ) -> types.Transition:
    """As ever, told to one of the two; the other is paid by chance."""
    found = super().step(state, action, seed)
    past = found.state.past
    said = f'{past // 11 % 2} {found.observation.text}'
    return found._replace(
      observation=types.Observation(said),
      agent=past // 11 % 2,
      others={past // 13 % 2: {'social': past % 5 / 4}},
    )


@functools.cache
def config(**settings) -> config_lib.TransformerConfig:
  """The toy size, for the vocabulary of bytes."""
  return sizes.load('toy', TOKENIZER.vocab_size, **settings)


@functools.cache
def params(made: config_lib.TransformerConfig | None = None):
  """Fresh parameters, by default of `config()`."""
  init = jax.jit(functools.partial(transformer.init, made or config()))
  return init(jax.random.key(1))


def make_sampler(**settings) -> sampler_lib.Sampler:
  """A sampler of the toy; compiles its programs."""
  made = settings.pop('config', None) or config()
  shape = settings.pop('shape', SHAPE)
  chosen = dict(stop_ids=STOP_IDS, seed=3) | settings
  return sampler_lib.Sampler(made, shape, **chosen)


@functools.cache
def sampler() -> sampler_lib.Sampler:
  """The sampler that tests share."""
  return make_sampler()


def world(
  environment=None, *, context='append_all', **changes
) -> rollout.World:
  """A world; `changes` are fields of `rollout.World`, or of its limits."""
  own = {k: changes.pop(k) for k in rollout.World._fields if k in changes}
  made = rollout.World(
    environment or Wander(),
    TOKENIZER,
    protocol.Grammar(),
    context_lib.CONTEXTS[context](),
    LIMITS._replace(**changes),
    seed=5,
  )
  return made._replace(**own)


def tasks(number: int) -> list[types.Task]:
  """Tasks whose prompts differ in length."""
  return [
    types.Task(i, f'task {i}' + ' and so on' * (i % 3), str(i))
    for i in range(number)
  ]


def requests(draws: int, members: int = 1) -> list[rollout.Request]:
  """Groups of episodes."""
  return [
    rollout.Request(draw, task, member)
    for draw, task in enumerate(tasks(draws))
    for member in range(members)
  ]


def play(
  made: rollout.World,
  asked: list[rollout.Request],
  *,
  by: sampler_lib.Sampler | None = None,
  workers: int | rollout.Workers = 2,
  temperature: float = 1.0,
  parameters=None,
) -> list[types.Episode]:
  """Episodes, sampled by the shared sampler if no other is given."""
  by = by or sampler()
  by.load(params(by.config) if parameters is None else parameters, 7)
  own = rollout.Workers(workers) if isinstance(workers, int) else workers
  try:
    return rollout.collect(
      by, made, asked, temperature=temperature, workers=own
    )
  finally:
    if own is not workers:
      own.close()


def assert_same(actual, desired) -> None:
  """Asserts that episodes are equal, to the bit of their log-probabilities."""
  assert len(actual) == len(desired)
  for one, other in zip(actual, desired, strict=True):
    assert one._replace(segments=()) == other._replace(segments=())
    assert len(one.segments) == len(other.segments)
    for found, wanted in zip(one.segments, other.segments, strict=True):
      for name in types.Segment._fields:
        left, right = getattr(found, name), getattr(wanted, name)
        if left is None or right is None:
          assert left is right, name
          continue
        assert left.dtype == right.dtype, name
        assert left.tobytes() == right.tobytes(), (name, one.draw, one.member)


def said(episode: types.Episode) -> list[list[int]]:
  """The action tokens of every turn."""
  return [
    [
      int(token)
      for segment in episode.segments
      for token in segment.tokens[segment.action_mask & (segment.turn == turn)]
    ]
    for turn in range(len(episode.turns))
  ]


def batch_shape(groups: int, group_size: int, **changes) -> batching.Shape:
  """Sizes for stacking episodes of these limits; see `batching.shape_for`."""
  chosen = dict(
    groups=groups,
    group_size=group_size,
    turns=LIMITS.turns,
    segment_tokens=LIMITS.segment_tokens,
    segments=LIMITS.turns,
    action_tokens=LIMITS.turns * LIMITS.action_tokens,
    microbatch_rows=group_size * LIMITS.turns,
  )
  return batching.shape_for(**(chosen | changes))


def in_process(expression: str, **environment: str) -> str:
  """What a Python expression prints as, in a process of its own.

  Args:
    expression: may use the modules of `tests` by their names.
    **environment: variables to set.
  """
  names = re.findall(r'\b\w+_(?:test|world)\b', expression)
  imports = ''.join(
    f'from tests import {name}\n' for name in sorted(set(names))
  )
  done = subprocess.run(
    [sys.executable, '-c', f'{imports}print({expression})'],
    env={**os.environ, **environment},
    cwd=pathlib.Path(__file__).parents[1],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()[-1]
