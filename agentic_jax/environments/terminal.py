"""Work in a shell that is a value, judged by what the directory is like."""

import hashlib
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import shell as shell_lib

_GRAMMAR = protocol.Grammar()
DONE = 'done'


class State(NamedTuple):
  """The situation."""

  prompt: str
  shell: shell_lib.Shell
  goal: shell_lib.Files
  look: str  # The command by which one finds out.
  looked: bool = False
  turn: int = 0
  ended: bool = False


class Terminal:
  """A turn is a command, `<tool>grep -r bee420 /</tool>`, or the end of work.

  Commands are those of `tasks.shell`. `<answer>done</answer>` ends the
  episode: with the final reward 1 if the directory is as it should be and
  nothing else has changed, else 0. What was done cannot be undone, unless by
  other commands. The state key is the task, the directory and the place.
  """

  def __init__(
    self,
    *,
    max_turns: int = 10,
    command_price: float = 0.0,
    error_price: float = 0.0,
    max_characters: int = 400,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      command_price: taken from the auxiliary reward for each command.
      error_price: taken besides for one that fails, or does not parse.
      max_characters: of what a command writes; the rest is cut off.
      observability: 'partial' shows what commands write; 'full' also the whole
        directory after every turn.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if (
      min(max_turns, max_characters) < 1 or min(command_price, error_price) < 0
    ):
      raise ValueError(
        'A terminal has at least 1 turn and 1 character, and no negative '
        f'prices; got {max_turns=}, {max_characters=}, {command_price=}, '
        f'{error_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._max_characters = max_characters
    self._command_price, self._error_price = command_price, error_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """What is to be done. The seed is not used.

    Raises:
      ValueError: if the task has no directory or no goal.
    """
    del seed
    shell = shell_lib.Shell(shell_lib.read(task.data, 'files'))
    goal = shell_lib.read(task.data, 'goal')
    state = State(task.prompt, shell, goal, task.data.get('look', ''))
    return types.Transition(
      state,
      types.Observation(self._shown(state, task.prompt)),
      state_key=_key(state),
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What a command writes, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    turn = state.turn + 1
    if parsed.answer is not None:
      right = parsed.answer.strip() == DONE and state.shell.files == state.goal
      after = state._replace(turn=turn, ended=True)
      return types.Transition(
        after,
        types.Observation(''),
        {'final': float(right)},
        terminated=True,
        state_key=_key(after),
      )
    says, price = f'error: {parsed.error}', self._error_price
    after = state
    if parsed.calls:
      line = base.clean(parsed.calls[0].arguments)
      price = self._command_price
      try:
        shell, says = shell_lib.run(state.shell, line)
        looked = state.looked or line.strip() == state.look
        after = state._replace(shell=shell, looked=looked)
      except shell_lib.WrongCommand as wrong:
        says = f'error: {wrong}'
        price += self._error_price
    truncated = turn >= self.max_turns
    after = after._replace(turn=turn, ended=truncated)
    return types.Transition(
      after,
      types.Observation(self._shown(after, says)),
      {'auxiliary': -price} if price else {},
      truncated=truncated,
      state_key=_key(after),
    )

  def _shown(self, state: State, says: str) -> str:
    over = len(says) - self._max_characters
    if over > 0:
      says = f'{says[: self._max_characters]}... {over} more'
    if self.observability == 'partial':
      return says
    lines = [
      f'{path}/' if text is None else f'{path}: {" ".join(text.split())}'
      for path, text in state.shell.files
    ]
    return '\n'.join([says, f'in /{state.shell.place}', *lines])

  def admissible(self, state: State) -> tuple[str, ...]:
    """The next command of the solver, some that look, and the end."""
    named = [path for path, text in state.shell.files if text is not None][:2]
    lines = [*filter(None, [_due(state)]), 'ls /', 'cd /']
    lines += [f'cat /{path}' for path in named]
    return (*(f'<tool>{line}</tool>' for line in lines), _end())

  def privileged(self, state: State) -> str:
    """What the solver would still do, a command."""
    return _due(state)

  def oracle(self, state: State) -> str:
    """Looks once, and then mends one difference after the other."""
    if self.observability == 'partial' and state.look and not state.looked:
      return f'<tool>{state.look}</tool>'
    line = _due(state)
    return f'<tool>{line}</tool>' if line else _end()


def _end() -> str:
  return _GRAMMAR.render(protocol.Action(answer=DONE))


def _due(state: State) -> str:
  """A command that mends a difference from the goal; '' if there is none."""
  there, goal = dict(state.shell.files), dict(state.goal)
  surplus = [path for path in there if path not in goal]
  for path, text in goal.items():
    if path in there and there[path] == text:
      continue
    if text is None:
      return f'mkdir /{path}'
    name = path.rpartition('/')[2]
    for own in surplus:
      if there[own] == text and own.rpartition('/')[2] == name:
        return f'mv /{own} /{path}'
    return _rewrite(path, there.get(path) or '', text)
  if surplus:
    own = surplus[0]
    return f'rm -r /{own}' if there[own] is None else f'rm /{own}'
  return ''


def _rewrite(path: str, there: str, text: str) -> str:
  """The command that writes the next line of a file."""
  if there and text.startswith(there):
    line = text[len(there) :].partition('\n')[0]
    return f'echo {line} >> /{path}'
  return f'echo {text.partition(chr(10))[0]} > /{path}'


def _key(state: State) -> str:
  said = repr((state.shell, state.looked)).encode()
  return f'{state.prompt}|{hashlib.blake2b(said, digest_size=8).hexdigest()}'
