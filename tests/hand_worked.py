"""Hand-worked batches, and what a recipe credits each of their tokens."""

from collections.abc import Sequence

import jax
import numpy as np

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from tests import tiny_training

Batch = tuple[types.Trajectory, types.Turns]


def batch(
  episodes: Sequence[types.Episode],
  *,
  values: Sequence[Sequence[float]] | None = None,
) -> Batch:
  """A batch of few columns, so that episodes lie in several rows.

  Args:
    episodes: hand-made.
    values: of each episode: of its action tokens, then of the entry after its
      last segment. Any other entry is 9.
  """
  # One shape for all, so that programs compile once.
  shape = batching.Shape(16, 20, 16, 10, 3, 13)
  stacked = batching.stack(episodes, shape)
  trajectory, turns = stacked.trajectory, stacked.turns
  if values is not None:
    laid = np.full(trajectory.tokens.size, 9.0, np.float32)
    for own, row in zip(values, turns.tokens):
      places = row[row >= 0]
      laid[places] = own[:-1]
      laid[places[-1] + 1] = own[-1]
    trajectory = trajectory._replace(
      values=laid.reshape(trajectory.tokens.shape)
    )
  return trajectory, turns


def per_episode(array: types.Array, turns: types.Turns) -> list[np.ndarray]:
  """What an array [B, T] says of each episode's action tokens."""
  return [np.asarray(array).ravel()[row[row >= 0]] for row in turns.tokens]


def credit_of(
  made: recipe_lib.Recipe, batch: Batch
) -> tuple[list[np.ndarray], types.Credit]:
  """The advantages of each episode's tokens; they are 0 anywhere else."""
  trajectory, turns = batch
  credit = jax.jit(made.credit)(trajectory, turns)
  advantages = np.asarray(credit.advantages)
  assert advantages.dtype == np.float32
  assert not np.any(advantages[~trajectory.action_mask])
  return per_episode(advantages, turns), credit


def two_groups() -> list[types.Episode]:
  """Returns 1, 0, 0.5 and 0.2, 0.2, 0.2; the last episode failed."""
  rng = np.random.default_rng(0)
  plan = [
    # draw, tokens of both turns, rewards, situations
    (0, (1, 3), (0.5, 0.5), ('start', 'a')),
    (0, (4, 4), (0.0, 0.0), ('start', 'start')),
    (0, (2, 4), (0.0, 0.5), ('start', 'a')),
    (1, (2, 2), (0.1, 0.1), ('start', 'b')),
    (1, (3, 1), (0.1, 0.1), ('start', 'c')),
    (1, (4, 4), (0.2, 0.0), ('start', '')),
  ]
  found = []
  for member, (draw, (n, m), rewards, keys) in enumerate(plan):
    segments = [
      tiny_training.segment(rng, [(-1, 2), (0, n)]),
      tiny_training.segment(rng, [(-1, 5), (1, m)]),
    ]
    if member % 2:
      segments = [
        tiny_training.segment(rng, [(-1, 2), (0, n), (-1, 3), (1, m)])
      ]
    found.append(
      tiny_training.episode(draw, member, rewards, segments, keys=keys)
    )
  failed = tiny_training.episode(1, 9, (7.0,), (), failure='raised')
  return [*found, failed]


def random_batch(seed: int = 0) -> Batch:
  """Nine random episodes with values."""
  episodes = tiny_training.episodes(seed, groups=3, members=3)
  values = np.random.default_rng(seed).normal(size=200)
  trajectory, turns = batch(episodes)
  sizes = np.sum(turns.tokens >= 0, axis=1)
  own = [
    values[i * 13 : i * 13 + n + 1]
    for i, n in enumerate(sizes[: len(episodes)])
  ]
  return batch(episodes, values=own)
