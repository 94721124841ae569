"""A world of letters in which a whole run takes seconds.

Each of three turns shows one of the letters a to d and pays for an answer that
is the next in the alphabet (a after d). The policy begins with what it learns
from speakers who say any letter, so one answer in four is right; all else it
learns by what it is paid.

The compiled programs are made once a process and serve all its runs.
"""

from collections.abc import Callable
import random
from typing import Any, NamedTuple

import jax
import numpy as np

from agentic_jax import batching
from agentic_jax import context
from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import sizes
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import pool
from agentic_jax.train import ahead
from agentic_jax.train import learner as learner_lib
from agentic_jax.train import versions

LETTERS = 'abcd'
TURNS = 3
GROUPS, GROUP_SIZE = 8, 4
_TASKS = 512
_CACHES = ('swaps', 'rebuilt_tokens', 'stale_tokens')
_IMITATION_STEPS = 40
_TOKENIZER = tokenizer.ByteTokenizer()
LIMITS = rollout.Limits(turns=TURNS, action_tokens=1, segment_tokens=20)
_SHAPE = programs.Shape(
  slots=GROUPS * GROUP_SIZE,
  capacity=32,
  cache_block=32,
  decode_block=8,
  prefill_rows=GROUPS * GROUP_SIZE,
  prefill_chunk=8,
)


class State(NamedTuple):
  """The letters of all turns, and the turn that is due."""

  letters: str
  turn: int = 0


class Letters:
  """Shows letters, and pays for those that follow in the alphabet."""

  observability = 'full'

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The first letter. The seed is not used."""
    del seed
    state = State(task.prompt)
    return types.Transition(state, types.Observation(_shown(state)))

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The next letter. All turns answered rightly earn 1 together."""
    del seed
    right = action == answer(_shown(state))
    state = state._replace(turn=state.turn + 1)
    return types.Transition(
      state,
      types.Observation(_shown(state)),
      {'final': right / TURNS},
      terminated=state.turn == TURNS,
      state_key=f'{state.turn}',
    )


def _shown(state: State) -> str:
  return state.letters[state.turn : state.turn + 1]


def answer(shown: str) -> str:
  """The letter that follows the one shown."""
  return LETTERS[(LETTERS.index(shown) + 1) % len(LETTERS)]


def tasks() -> list[types.Task]:
  """The letters of an episode's turns."""
  chance = random.Random('letters')
  texts = [''.join(chance.choices(LETTERS, k=TURNS)) for _ in range(_TASKS)]
  return [types.Task(i, text) for i, text in enumerate(texts)]


def anything(task: types.Task, seed: int) -> list[str]:
  """A demonstration that says any letters."""
  return random.Random(f'{task.prompt} {seed}').choices(LETTERS, k=TURNS)


class Bench:
  """The slots, and a learner for each recipe that was asked for."""

  def __init__(self) -> None:
    """Compiles nothing yet."""
    self.world = rollout.World(
      Letters(),
      _TOKENIZER,
      protocol.Grammar(),
      context.append_all,
      LIMITS,
      seed=0,
    )
    self._config = sizes.load('toy', _TOKENIZER.vocab_size, layers=1)
    self.sampler = sampler_lib.Sampler(
      self._config, _SHAPE, stop_ids=(), seed=0
    )
    self._workers = rollout.Workers(1)
    self._learners: dict[str, tuple[Any, learner_lib.Learner]] = {}
    self._warm: dict[int, Any] = {}

  def learner(
    self, name: str, make: Callable[[], recipe_lib.Recipe], seed: int
  ) -> tuple[recipe_lib.Recipe, learner_lib.Learner]:
    """A recipe's learner, standing where the run of a seed begins."""
    if name not in self._learners:
      recipe = make()
      plan = train.Plan(
        config=self._config,
        shape=_batch_shape(recipe),
        mesh=sharding.make_mesh(),
        workdir=None,  # type: ignore[arg-type]  # Nothing is written.
        steps=0,
        pieces=_TOKENIZER.pieces,
      )
      state = self._state(recipe, 0)
      self._learners[name] = recipe, learner_lib.Learner(recipe, plan, state)
    recipe, learner = self._learners[name]
    state = self._state(recipe, seed)
    if name != 'imitation':
      state = train.begin_with(state, self.warm_start(seed), recipe.optimizer)
    learner.take({'state': state, 'reference': None})
    return recipe, learner

  def _state(self, recipe: recipe_lib.Recipe, seed: int) -> train.TrainState:
    key = jax.random.key(seed)
    return train.init_state(self._config, recipe, sharding.make_mesh(), key)

  def warm_start(self, seed: int) -> Any:
    """Parameters that say any letters; made once a process."""
    if seed not in self._warm:
      make = lambda: recipe_lib.supervised(learning_rate=1e-2)
      _, learner = self.learner('imitation', make, seed)
      source = rollout.Demonstrations(
        self.world._replace(seed=seed),
        pool.Pool(tasks(), seed),
        anything,
        episodes_per_step=GROUPS * GROUP_SIZE,
      )
      for step in range(_IMITATION_STEPS):
        learner.learn(source.batch(step, None).episodes)
      self._warm[seed] = jax.tree.map(np.asarray, learner.state.policy)
    return self._warm[seed]

  def source(self, recipe: recipe_lib.Recipe, seed: int) -> rollout.Rollouts:
    """Groups of episodes, in the order of the seed."""
    self.sampler.seed(seed)
    return rollout.Rollouts(
      self.sampler,
      self.world._replace(seed=seed),
      pool.Pool(tasks(), seed),
      self._workers,
      tasks_per_step=GROUPS,
      group_size=GROUP_SIZE,
      temperature=1.0,
    )


def run(
  bench: Bench,
  name: str,
  make: Callable[[], recipe_lib.Recipe],
  *,
  staleness: int,
  seed: int,
  steps: int,
  swap: str = '',
) -> dict[str, Any]:
  """Trains from the warm start of a seed.

  Args:
    bench: of the process.
    name: of the recipe.
    make: makes it.
    staleness: batches that the parameters which sample lag behind.
    seed: of the run.
    steps: batches of the run.
    swap: see `versions.parse`.

  Returns:
    The share of right letters at every step, and that of four batches of the
    last parameters; how old those were that sampled, a mean, in batches; what
    became of caches; and seconds of sampling.
  """
  recipe, learner = bench.learner(name, make, seed)
  source = bench.source(recipe, seed)
  chosen = versions.parse(swap)
  batches = ahead.Ahead(source, staleness, lambda params: params, chosen)
  curve: list[float] = []
  totals = dict.fromkeys(('age', 'sampling_seconds', *_CACHES), 0.0)
  try:
    for step in range(steps):
      sampled = batches.next(step, learner.state.params, steps)
      learner.learn(sampled.batch.episodes)
      found = sampled.batch.metrics
      curve.append(found['rollout/reward'])
      totals['age'] += sampled.staleness / steps
      totals['sampling_seconds'] += sampled.seconds
      for total in _CACHES:
        totals[total] += found.get(f'rollout/{total}', 0.0)
  finally:
    batches.close()
  last = [source.batch(steps, learner.state.policy) for _ in range(4)]
  end = np.mean([batch.metrics['rollout/reward'] for batch in last])
  return {'curve': curve, 'end': float(end), **totals}


def _batch_shape(recipe: recipe_lib.Recipe) -> batching.Shape:
  return batching.shape_for(
    groups=GROUPS,
    group_size=GROUP_SIZE,
    turns=TURNS,
    segment_tokens=LIMITS.segment_tokens,
    segments=1,
    action_tokens=TURNS,
    microbatch_rows=GROUPS * GROUP_SIZE // recipe.minibatches,
  )
