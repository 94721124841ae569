"""Worlds as environments of Gymnasium."""

from collections.abc import Sequence
import functools
import string
from typing import Any

from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live


class Playing:
  """The methods of a `gymnasium.Env` in which a world is played."""

  np_random: Any  # The generator of gymnasium.Env.
  render_mode = None

  def __init__(
    self,
    environment: base.Environment,
    tasks: Sequence[types.Task],
    length: int,
    characters: str,
  ):
    """See `to_gymnasium`."""
    gymnasium = live.package('gymnasium', 'gymnasium')
    text = functools.partial(gymnasium.spaces.Text, length, min_length=0)
    self.observation_space = text(charset=characters)
    self.action_space = text(charset=characters)
    self._begin = gymnasium.Env.reset
    self._environment = environment
    self._tasks = tasks
    self._length = length
    self._characters = frozenset(characters)
    self._state: Any = None
    self._playing = False

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[str, dict[str, Any]]:
    """Begins a task, drawn by the seed or named by the option `task`."""
    self._begin(self, seed=seed)
    drawn = int(self.np_random.integers(len(self._tasks)))
    index = (options or {}).get('task', drawn)
    transition = self._environment.reset(self._tasks[index], self._seed())
    text, _, _, _, facts = self._answer(transition)
    return text, facts | {'task': index}

  def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
    """What follows a text.

    Raises:
      ValueError: no episode is being played.
    """
    if not self._playing:
      raise ValueError('This episode has ended or not begun; reset first.')
    return self._answer(
      self._environment.step(self._state, action, self._seed())
    )

  def _seed(self) -> int:
    return int(self.np_random.integers(2**31))

  def _answer(self, transition: types.Transition) -> Any:
    ended = transition.terminated or transition.truncated
    self._state, self._playing = transition.state, not ended
    text = transition.observation.text[: self._length]
    facts = {'reward': dict(transition.reward), 'agent': int(transition.agent)}
    if transition.others:
      facts['others'] = {i: dict(r) for i, r in transition.others.items()}
    return (
      ''.join(c if c in self._characters else '?' for c in text),
      float(sum(transition.reward.values())),
      bool(transition.terminated),
      bool(transition.truncated),
      facts,
    )


def to_gymnasium(
  environment: base.Environment,
  tasks: Sequence[types.Task],
  *,
  length: int = 4096,
  characters: str = string.printable,
) -> Any:
  """A `gymnasium.Env` whose observations and actions are texts.

  Its reward is the sum of the components, which are in the info, and of a world
  of several agents that of who moved: who moves next, and what others earned,
  is in the info, too. Images are left out.

  Args:
    environment: of ours.
    tasks: of which `reset` draws one; `options={'task': 3}` names one.
    length: the most characters of a text; of an observation the first.
    characters: of all texts; `?`, one of them, stands for another.

  Raises:
    ValueError: the extra is missing, or there are no tasks.
  """
  gymnasium = live.package('gymnasium', 'gymnasium')
  if not len(tasks) or length < 1 or '?' not in characters:
    raise ValueError(
      'to_gymnasium wants at least one task and one character, and ? among '
      f'the characters; got {len(tasks)} tasks, {length=}.'
    )
  made = type('ToGymnasium', (Playing, gymnasium.Env), {})
  return made(environment, tasks, length, characters)
