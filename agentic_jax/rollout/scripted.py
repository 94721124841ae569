"""Scripted behaviour: actions written beforehand, played in the environment."""

from collections.abc import Callable, Sequence

import numpy as np

from agentic_jax import types
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import faults
from agentic_jax.rollout import world as world_lib

# (task, seed) -> the texts of the actions, in order. The environment is reset
# with `seed`, and stepped in turn t with `derive_seed(seed, t)`. Where the
# context asks for a summary, the next of the actions is the summary.
Script = Callable[[types.Task, int], Sequence[str]]


class TooLongError(ValueError):
  """A demonstration does not fit the limits of an episode."""


def play(
  world: world_lib.World,
  script: Script,
  request: episodes_lib.Request,
  *,
  temperature: float = 1.0,
) -> types.Episode:
  """Plays a script into an episode like any other.

  It begins in the situation of the sampled members of its group. The tokens are
  not sampled by a policy: `policy_step` stays -1.

  Args:
    world: what lies between the script and the environment.
    script: says the actions.
    request: the episode to play. Members of a group play the same.
    temperature: at which the policy is asked how likely the tokens are.

  Returns:
    The episode. Whatever raises on the way has cost it: see `Episode.failure`.

  Raises:
    TooLongError: an action does not fit the limits.
  """
  builder = episodes_lib.Builder(world, request)
  seed = episodes_lib.derive_seed(world.seed, request.draw)
  try:
    builder.reset(world.environment.reset(request.task, seed))
    for action in script(request.task, seed):
      if builder.ended:
        break
      _say(world, builder, action, seed, temperature)
  except TooLongError:
    raise
  except faults.Garbage as error:
    builder.fail(error.kind, str(error))
  except Exception as error:  # Whatever it is costs one episode.
    builder.fail('raised', faults.describe(error))
  return builder.episode()


def _say(
  world: world_lib.World,
  builder: episodes_lib.Builder,
  action: str,
  seed: int,
  temperature: float,
) -> None:
  ids = np.asarray(world.tokenizer.action(action), np.int32)
  if len(ids) > builder.room:
    raise TooLongError(
      f'A demonstration of task {builder.request.task.prompt!r:.80} has an '
      f'action of {len(ids)} tokens where {builder.room} are allowed; raise '
      f'--limit=action_tokens={len(ids)} and --limit=segment_tokens=N, or '
      'leave it out.'
    )
  text = builder.act(ids, np.zeros(len(ids), np.float32), -1, temperature)
  if builder.asked:
    builder.observe(builder.reply())
    return
  seed = episodes_lib.derive_seed(seed, builder.turn)
  builder.observe(world.environment.step(builder.state, text, seed))
