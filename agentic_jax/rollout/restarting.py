"""Episodes that begin at a turn of an earlier one."""

from typing import Any

from agentic_jax import context as context_lib
from agentic_jax import types
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import world as world_lib


def refuse(world: world_lib.World, *, branch: Any, demonstrations: int) -> None:
  """Raises ValueError where episodes cannot begin within earlier ones.

  Args:
    world: of the episodes.
    branch: of the recipe: how its episodes fork.
    demonstrations: of the recipe: how many a group has.
  """
  name = type(world.environment).__name__
  faults = {
    f'a state of {name} can be stepped only once (forkable = False)': (
      not getattr(world.environment, 'forkable', True)
    ),
    'the context cuts what was said, and an earlier episode may have been cut '
    'elsewhere; leave --context out': (
      world.context is not context_lib.append_all
    ),
    'the policy sees images, and a restart keeps tokens alone': (
      world.images is not None
    ),
    f'{name} has several agents, each of which saw its own past': (
      world.agents > 1
    ),
    'the recipe forks episodes at their turns itself': (branch is not None),
    'the recipe puts demonstrations, which begin at a reset, into its groups': (
      demonstrations > 0
    ),
  }
  found = [fault for fault, is_there in faults.items() if is_there]
  if found:
    raise ValueError(
      f'Episodes cannot begin within earlier ones here: {"; ".join(found)}. '
      'Take another --sampler, such as uniform.'
    )


def begin(
  world: world_lib.World,
  task: types.Task,
  draw: int,
  restart: types.Restart | None,
) -> types.Transition:
  """The transition with which an episode begins.

  Args:
    world: its environment is reset, and stepped with the actions of the
      restart and the seeds that these had.
    task: to be played.
    draw: of the episode; seeds the reset where there is no restart.
    restart: where it begins.

  Raises:
    RuntimeError: the world ended on the way, where it did not before.
  """
  environment = world.environment
  if restart is None:
    # The members of a group begin in one situation: no member in the seed.
    seed = episodes_lib.derive_seed(world.seed, draw)
    return environment.reset(task, seed)
  seed = episodes_lib.derive_seed(world.seed, restart.draw)
  transition = environment.reset(task, seed)
  for turn, said in enumerate(restart.actions):
    if transition.terminated or transition.truncated:
      raise RuntimeError(
        f'the world ended in turn {turn} of {len(restart.actions)} that were '
        'played once more, with the same actions and seeds; what an '
        'environment does follows from state, action and seed'
      )
    seed = episodes_lib.derive_seed(
      world.seed, restart.draw, restart.member, turn
    )
    action = world.grammar.for_world(said)
    transition = environment.step(transition.state, action, seed)
  return transition
