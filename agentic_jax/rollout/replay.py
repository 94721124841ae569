"""The states of an episode, played once more."""

from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import faults
from agentic_jax.rollout import restarting
from agentic_jax.rollout import world as world_lib


def refuse(world: world_lib.World) -> None:
  """Raises ValueError where episodes cannot be played once more.

  The states of the environment can be stepped only once, or it has several
  agents.
  """
  environment = world.environment
  if not getattr(environment, 'forkable', True):
    raise ValueError(
      f'{type(environment).__name__} declares forkable = False: its episodes '
      'cannot be played once more. Use what an episode records instead.'
    )
  if world.agents > 1:
    raise ValueError(
      f'{type(environment).__name__} has {world.agents} agents: an episode is '
      'the part of one of them, and cannot be played once more without the '
      'others. Use what an episode records instead.'
    )


def states(episode: types.Episode, world: world_lib.World) -> list[Any]:
  """The state in which each turn began.

  An environment remembers nothing, so its states are not kept: the recorded
  actions, with the seeds of the rollout, lead through the same ones.

  Args:
    episode: sampled in this world.
    world: of the rollout.

  Raises:
    ValueError: see `refuse`; or the episode forked from another or was
      demonstrated: then its turns had other seeds.
    RuntimeError: the environment raised.
  """
  refuse(world)
  environment = world.environment
  draw, member = episode.draw, episode.member
  scripted = any(
    np.any(s.action_mask & (s.policy_step < 0)) for s in episode.segments
  )
  if scripted or any(turn.node >= 0 for turn in episode.turns):
    raise ValueError(
      f'Episode {member} of the task {episode.task.prompt!r:.80} forked from '
      'another or was demonstrated, and its turns cannot be played once more; '
      'use a recipe without branch and demonstrations.'
    )
  found: list[Any] = []
  try:
    begun = restarting.begin(world, episode.task, draw, episode.restart)
    state = begun.state
    for number, turn in enumerate(episode.turns):
      found.append(state)
      if number + 1 < len(episode.turns) and not turn.asked:
        seed = episodes_lib.derive_seed(world.seed, draw, member, number)
        action = world.grammar.for_world(turn.action)
        state = environment.step(state, action, seed).state
  except Exception as error:  # Whatever it is, it did not happen before.
    raise RuntimeError(
      f'The environment raised {faults.describe(error)} when turn '
      f'{len(found)} of the task {episode.task.prompt!r:.80} was played once '
      'more, with the same actions and seeds. Mend it: what an environment '
      'does follows from state, action and seed.'
    ) from error
  return found
