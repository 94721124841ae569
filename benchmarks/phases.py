"""What a training step spends its time on: the compiled pieces, one by one.

Times the programs that `train.run` and the sampler run, on a batch that was
really sampled, and counts what each has to multiply.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.sampling import programs as programs_lib
from benchmarks import common


class Part(NamedTuple):
  """One phase of a step."""

  seconds: float  # Median.
  flops: float  # Of products that it cannot do without; 0 if there are none.


def forward_flops(tokens: int, context: float) -> float:
  """Multiplications and additions of a forward pass.

  Args:
    tokens: how many.
    context: how many keys a token sees, on average.
  """
  c = common.config()
  joint = (2 * c.heads + 2 * c.kv_heads) * c.head_dim  # In and out.
  matrices = c.layers * c.width * (joint + 3 * c.mlp_width)
  matrices += c.width * c.vocab_size
  attention = 2 * c.layers * c.heads * c.head_dim * context
  return 2 * tokens * (matrices + attention)


def measure(
  recipe: recipe_lib.Recipe,
  batch_shape: batching.Shape,
  slots_shape: programs_lib.Shape,
  episodes: Sequence[types.Episode],
  repeats: int,
) -> dict[str, Part]:
  """The phases of a step, by name.

  Args:
    recipe: as in the step.
    batch_shape: of training.
    slots_shape: of sampling.
    episodes: a batch, all of one length.
    repeats: how often each is timed.
  """
  sampled = _sampling(slots_shape, episodes, repeats)
  return sampled | _training(recipe, batch_shape, episodes, repeats)


def _sampling(shape, episodes, repeats) -> dict[str, Part]:
  """Layout, prefill and decoding."""
  made = programs_lib.compile_programs(common.config(), shape, ())
  trained = common.initial_params()
  params = made.layout(trained)
  # Programs are given their caches, and hand them back.
  held = [programs_lib.empty_caches(common.config(), shape)]
  prompt = common.PROMPT_TOKENS
  new = int(episodes[0].segments[0].action_mask.sum())
  rows, size = shape.prefill_rows, shape.prefill_chunk
  tokens = np.zeros((rows, size), np.int32)
  slot = np.arange(rows, dtype=np.int32)

  def prefill():
    for start in range(0, prompt - 1, size):
      starts = np.full(rows, start, np.int32)
      held[0], _ = made.prefill(params, held[0], tokens, slot, starts)
    for at in range(rows, shape.slots, rows):
      held[0] = made.copy(held[0], slot, slot + at)
    return held[0]

  packed = standing(shape.slots, prompt, new)

  def decode():
    held[0], sampled = made.decode(params, held[0], jax.random.key(0), packed)
    return sampled

  per_prompt = forward_flops(prompt - 1, prompt / 2)
  all_new = forward_flops(shape.slots * new, prompt + new / 2)
  time_of = lambda run: common.median(common.seconds_of(run, repeats))
  return {
    'layout': Part(time_of(lambda: made.layout(trained)), 0.0),
    'prefill': Part(time_of(prefill), common.GROUPS * per_prompt),
    'decode': Part(time_of(decode), all_new),
  }


def standing(count: int, prompt: int, new: int) -> np.ndarray:
  """Slots behind prompts of a length with `new` tokens to go, for `decode`."""
  full = functools.partial(np.full, count, dtype=np.int32)
  slots = programs_lib.Slots(
    token=full(1),
    position=full(prompt - 1),
    active=np.ones(count, bool),
    left=full(new),
    draw=full(0),
    member=np.arange(count, dtype=np.int32),
    turn=full(0),
    temperature=np.ones(count, np.float32),
  )
  return programs_lib.pack(slots, steps=new, patience=count + 1)


class _Batch:
  """A batch on the device, and the training programs that work on it."""

  def __init__(self, recipe, shape: batching.Shape, episodes):
    mesh, key = sharding.make_mesh(''), jax.random.key(0)
    config = common.config()
    self._shape, self._episodes = shape, episodes
    self._programs = train.compile_programs(config, recipe, shape, mesh)
    self._state = train.init_state(config, recipe, mesh, key)
    # A copy: updates take the state's own buffers.
    params = jax.tree.map(jnp.copy, self._state.params)
    self._networks = recipe_lib.Networks(params, params)
    self._trajectory, self._turns = self.stack()
    count = batching.stack(episodes, shape).microbatches
    size = shape.microbatch_rows
    self._starts = [jnp.int32(i * size) for i in range(count)]

  def stack(self):
    """The batch, from episodes."""
    stacked = batching.stack(self._episodes, self._shape)
    scored = {
      name: np.zeros(stacked.trajectory.tokens.shape, np.float32)
      for name in self._programs.scored_fields
    }
    trajectory = stacked.trajectory._replace(**scored)
    return self._programs.place((trajectory, stacked.turns))

  def score(self):
    """The reference's log-probabilities."""
    for start in self._starts:
      self._trajectory = self._programs.score(
        self._networks, self._trajectory, self._turns, start
      )
    return self._trajectory

  def credit(self):
    """Credit, and the weights of all rows."""
    bounds = jnp.int32(0), jnp.int32(self._shape.rows)
    credit = self._programs.credit(self._trajectory, self._turns)
    return credit, self._programs.weigh(self._trajectory, self._turns, *bounds)

  def gradients(self):
    """The sum over the microbatches."""
    found, weights = self.credit()
    total = self._programs.zero()
    for start in self._starts:
      total, _ = self._programs.accumulate(
        self._networks.policy,
        None,
        total,
        self._trajectory,
        found,
        weights,
        start,
      )
    return total

  def update(self, gradients):
    """An optimiser step."""
    self._state, *rest = self._programs.update(self._state, gradients)
    return self._state, rest


def _training(recipe, shape, episodes, repeats) -> dict[str, Part]:
  """Stacking, the reference, credit, gradients and the update."""
  batch = _Batch(recipe, shape, episodes)
  time_of = lambda run: common.median(common.seconds_of(run, repeats))
  length = len(episodes[0].segments[0].tokens)
  once = forward_flops(len(episodes) * length, length / 2)
  credit = time_of(batch.credit)
  gradients = batch.gradients()
  return {
    'stack and place': Part(time_of(batch.stack), 0.0),
    'reference': Part(time_of(batch.score), once),
    'credit and weights': Part(credit, 0.0),
    'forward and backward': Part(time_of(batch.gradients) - credit, 3 * once),
    'update': Part(time_of(lambda: batch.update(gradients)), 0.0),
  }


def show(parts: dict[str, Part], step: float, rate: float) -> float:
  """Prints where a step's time goes; returns the arithmetic floor in seconds.

  Args:
    parts: from `measure`.
    step: seconds of a whole step.
    rate: FLOP/s of a large product.
  """
  host = step - sum(part.seconds for part in parts.values())
  rows = []
  for name, (seconds, flops) in (parts | {'host': Part(host, 0.0)}).items():
    row = [name, f'{1e3 * seconds:.1f}', f'{seconds / step:.0%}']
    reached = flops / seconds / 1e9 if flops else 0.0
    row += [f'{flops / 1e9:.1f}', f'{reached:.0f}'] if flops else ['', '']
    rows.append(row)
  header = ['phase of our step', 'ms', 'share', 'GFLOP', 'GFLOP/s']
  print('\n' + common.table(header, rows))
  floor = sum(part.flops for part in parts.values()) / rate
  print(
    f'A product of 2048-cubed reaches {rate / 1e9:.0f} GFLOP/s. At that rate '
    f'the step takes {floor:.3f} s: the step reaches {floor / step:.0%} of it.',
    flush=True,
  )
  return floor
