"""What a training step spends its time on: the compiled pieces, one by one.

Times the programs that `train.run` and the sampler run, on a batch that was
really sampled, and counts what each has to multiply.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

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
  params = common.initial_params()
  layout = common.seconds_of(lambda: made.layout(params), repeats)
  params = made.layout(params)
  # Programs are given their caches, and hand them back.
  held = [programs_lib.empty_caches(common.config(), shape)]
  prompt, new = (
    common.PROMPT_TOKENS,
    int(episodes[0].segments[0].action_mask.sum()),
  )
  rows, size = shape.prefill_rows, shape.prefill_chunk
  tokens = np.zeros((rows, size), np.int32)
  slot = np.arange(rows, dtype=np.int32)
  source = np.repeat(slot, -(-shape.slots // rows))[: shape.slots]
  starts = range(0, prompt - 1, size)

  def prefill():
    for start in starts:
      held[0] = made.prefill(
        params, held[0], tokens, slot, np.full(rows, start, np.int32)
      )
    for at in range(0, shape.slots, rows):
      target = np.arange(at, at + rows, dtype=np.int32)
      held[0] = made.copy(held[0], source[target], target)
    return held[0]

  packed = _slots(shape.slots, prompt, new)

  def decode():
    held[0], sampled = made.decode(params, held[0], jax.random.key(0), packed)
    return sampled

  per_prompt = forward_flops(prompt - 1, prompt / 2)
  all_new = forward_flops(shape.slots * new, prompt + new / 2)
  return {
    'layout': Part(common.median(layout), 0.0),
    'prefill': Part(
      common.median(common.seconds_of(prefill, repeats)),
      common.GROUPS * per_prompt,
    ),
    'decode': Part(common.median(common.seconds_of(decode, repeats)), all_new),
  }


def _slots(count: int, prompt: int, new: int) -> np.ndarray:
  """Slots that stand behind their prompts with `new` tokens to go."""
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


def _training(recipe, shape, episodes, repeats) -> dict[str, Part]:
  """Stacking, the reference, credit, gradients and the update."""
  mesh = sharding.make_mesh('')
  programs = train.compile_programs(common.config(), recipe, shape, mesh)
  state = train.init_state(common.config(), recipe, mesh, jax.random.key(0))
  reference = jax.tree.map(jnp.copy, state.params)
  stacked = batching.stack(episodes, shape)
  scored = {
    name: np.zeros(stacked.trajectory.tokens.shape, np.float32)
    for name in programs.scored_fields
  }
  host = (stacked.trajectory._replace(**scored), stacked.turns)
  trajectory, turns = programs.place(host)
  networks = recipe_lib.Networks(state.params, reference)
  starts = [
    jnp.int32(i * shape.microbatch_rows) for i in range(stacked.microbatches)
  ]
  held: list[Any] = [trajectory, state]

  def score():
    for start in starts:
      held[0] = programs.score(networks, held[0], turns, start)
    return held[0]

  def credit():
    last = jnp.int32(shape.rows)
    return (
      programs.credit(held[0], turns),
      programs.weigh(held[0], turns, jnp.int32(0), last),
    )

  def accumulate():
    found, weights = credited
    gradients = programs.zero()
    for start in starts:
      gradients, _ = programs.accumulate(
        state.params, gradients, held[0], found, weights, start
      )
    return gradients

  time_of: Callable = lambda run: common.median(common.seconds_of(run, repeats))
  length = len(episodes[0].segments[0].tokens)
  once = forward_flops(len(episodes) * length, length / 2)
  parts = {
    'stack and place': Part(
      time_of(lambda: programs.place(batching.stack(episodes, shape)[:2])), 0.0
    ),
    'reference': Part(time_of(score), once),
    'credit and weights': Part(time_of(credit), 0.0),
  }
  credited = credit()
  parts['forward and backward'] = Part(time_of(accumulate), 3 * once)
  gradients = accumulate()

  def update():
    held[1], *rest = programs.update(held[1], gradients)
    return held[1], rest

  parts['update'] = Part(time_of(update), 0.0)
  return parts


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
