"""Episodes of scripted policies, for the tests of environments."""

import itertools
import random

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib


def play(environment, task, policy, seed=0):
  """The transitions of an episode; policy(state, rng) is its action."""
  rng = random.Random(seed)
  transitions = [environment.reset(task, seed)]
  actions = []
  while not (transitions[-1].terminated or transitions[-1].truncated):
    assert len(actions) < environment.max_turns, 'the world does not end'
    actions.append(policy(transitions[-1].state, rng))
    state = transitions[-1].state
    step_seed = 1000 * seed + len(actions)
    transitions.append(environment.step(state, actions[-1], step_seed))
  return transitions, actions


def success(transitions):
  return sum(t.reward.get('final', 0.0) for t in transitions) >= 0.5


def some_tasks(name, count=40, split='train'):
  own = environments.ON_DEVICE.get(name, name)
  return list(itertools.islice(tasks_lib.TASKS[own](split), count))


def replay(actions):
  """The policy that takes these actions in order."""
  script = iter(actions)
  return lambda state, rng: next(script)


def plain(transition):
  """A transition that can be compared: its images are texts and bytes."""
  text, images = transition.observation
  images = tuple((str(x.dtype), x.shape, x.tobytes()) for x in images)
  return transition._replace(observation=(text, images))
