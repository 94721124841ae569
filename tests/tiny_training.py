"""Training in seconds: hand-made episodes and a toy model.

Programs that XLA compiled are kept for the length of a test session and
shared with the processes that tests start: most tests compile the same ones.
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer

TOKENIZER = tokenizer.ByteTokenizer()


def config(recipe: recipe_lib.Recipe):
  """One layer, with the heads that the recipe wants."""
  return sizes.load(
    'toy', TOKENIZER.vocab_size, layers=1, output_heads=recipe.heads
  )


# Hand-made episodes.


def segment(
  rng: np.random.Generator,
  parts: Sequence[tuple[int, int]],
  *,
  policy_step: int = 0,
) -> types.Segment:
  """Random tokens; parts are (turn, length), and turn -1 is an observation."""
  turn = np.concatenate([np.full(n, t, np.int32) for t, n in parts])
  mask = turn >= 0
  n = len(turn)
  # Around what a fresh model says, so that some ratios are clipped.
  logprobs = rng.uniform(-6.5, -5.0, n)
  return types.Segment(
    tokens=rng.integers(0, 256, n).astype(np.int32),
    action_mask=mask,
    turn=turn,
    role=np.where(mask, rng.integers(0, len(types.ROLES), n), 0).astype(
      np.int8
    ),
    policy_step=np.where(mask, policy_step, -1).astype(np.int32),
    sampler_logprobs=np.where(mask, logprobs, 0.0).astype(np.float32),
    temperature=np.where(mask, 0.8, 1.0).astype(np.float32),
  )


def episode(
  draw: int,
  member: int,
  rewards: Sequence[float],
  segments: Sequence[types.Segment],
  *,
  keys: Sequence[str] | None = None,
  truncated: bool = False,
  failure: str = '',
) -> types.Episode:
  """An episode with one final reward a turn."""
  keys = keys or [''] * len(rewards)
  turns = tuple(
    types.Turn('x', types.Observation('y'), {'final': reward}, key)
    for reward, key in zip(rewards, keys, strict=True)
  )
  return types.Episode(
    types.Task(draw, 'prompt'),
    draw,
    member,
    tuple(segments),
    turns,
    terminated=not truncated,
    truncated=truncated,
    failure=failure,
  )


def episodes(
  seed: int = 0, *, groups: int = 4, members: int = 2, policy_step: int = 0
) -> list[types.Episode]:
  """Two turns each, in one segment or two; situations recur in a group."""
  rng = np.random.default_rng(seed)
  found = []
  for draw in range(groups):
    for member in range(members):
      n, m = rng.integers(2, 6, 2)
      make = lambda parts: segment(rng, parts, policy_step=policy_step)
      if (draw + member) % 2:
        segments = [make([(-1, 3), (0, n), (-1, 2), (1, m)])]
      else:
        segments = [make([(-1, 4), (0, n)]), make([(-1, 6), (1, m)])]
      rewards = rng.integers(0, 3, 2) / 2 + 0.25 * member
      keys = ['start', 'start' if member else f'{draw}']
      found.append(
        episode(
          draw,
          member,
          rewards.tolist(),
          segments,
          keys=keys,
          truncated=bool(rng.integers(2)),
        )
      )
  return found


def shape(
  *, rows: int = 16, microbatch_rows: int = 8, row_tokens: int = 17
) -> batching.Shape:
  """Room for `episodes()`."""
  return batching.Shape(
    rows=rows,
    row_tokens=row_tokens,
    microbatch_rows=microbatch_rows,
    episodes=8,
    turns=2,
    action_tokens=12,
  )


class Fixed:
  """The same batch at every step."""

  def __init__(self, played: Sequence[types.Episode]):
    self._played = list(played)

  def batch(self, step: int, params: Any) -> rollout.Batch:
    del step, params
    return rollout.Batch(self._played, rollout.statistics(self._played))

  def position(self) -> dict[str, Any]:
    return {}

  def restore(self, position: Any) -> None:
    del position


class First(NamedTuple):
  """The state of `remembering`."""

  gradient: Any
  updates: jax.Array
  inner: Any


def remembering(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """An optimiser that also keeps the first gradient, and counts updates."""

  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return First(zeros, jnp.int32(0), optimizer.init(params))

  def update(grads, state, params=None):
    kept = jax.tree.map(
      lambda old, new: jnp.where(state.updates == 0, new, old),
      state.gradient,
      grads,
    )
    updates, inner = optimizer.update(grads, state.inner, params)
    return updates, First(kept, state.updates + 1, inner)

  return optax.GradientTransformation(init, update)


@functools.cache
def _params(shape: config_lib.TransformerConfig, seed: int) -> Any:
  """Fresh parameters on the host; heads, if there are any, are not 0."""
  made = jax.jit(functools.partial(transformer.init, shape))(
    jax.random.key(seed)
  )
  found = jax.tree.map(np.array, made)
  rng = np.random.default_rng(seed)
  for name, head in found.get('heads', {}).items():
    drawn = rng.normal(scale=0.1, size=head.shape)
    found['heads'][name] = drawn.astype(np.float32)
  return found


def state_of(recipe: recipe_lib.Recipe, *, seed: int = 0) -> train.TrainState:
  """A fresh state, quickly."""
  params = jax.tree.map(jnp.array, _params(config(recipe), seed))
  return train.TrainState(params, recipe.optimizer.init(params))


def learn(
  recipe: recipe_lib.Recipe,
  source: Any,
  workdir: pathlib.Path,
  *,
  size: batching.Shape | None = None,
  mesh: str = '',
  steps: int = 1,
  seed: int = 0,
  checkpoint_every: int = 100,
  prefix_tree: float = 0.0,
) -> train.Result:
  """Runs the loop on a source, or on a list of episodes again and again.

  The optimiser is `remembering`.
  """
  if isinstance(source, list):
    source = Fixed(source)
  recipe = dataclasses.replace(recipe, optimizer=remembering(recipe.optimizer))
  plan = train.Plan(
    config=config(recipe),
    shape=size or shape(),
    mesh=sharding.make_mesh(mesh),
    workdir=workdir,
    steps=steps,
    pieces=TOKENIZER.pieces,
    checkpoint_every=checkpoint_every,
    prefix_tree=prefix_tree,
  )
  return train.run(recipe, source, plan, state_of(recipe, seed=seed))


def gradient(
  recipe: recipe_lib.Recipe,
  source: Any,
  workdir: pathlib.Path,
  **settings: Any,
) -> dict[str, np.ndarray]:
  """The first gradient of `learn`, by the name of the parameter."""
  result = learn(recipe, source, workdir, **settings)
  return by_name(result.state.optimizer_state.gradient)


def by_name(tree: Any) -> dict[str, np.ndarray]:
  """The leaves of a tree on the host."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): np.asarray(leaf)
    for path, leaf in leaves
  }


def assert_close(
  found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], limit: float
) -> None:
  """Absolute agreement of all leaves."""
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    gap = np.max(np.abs(found[name] - value))
    assert gap <= limit, f'{name} differs by {gap}'
