"""Blocks to be stacked anew, with few moves to spare."""

from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import blocks

_GRAMMAR = protocol.Grammar()


class State(NamedTuple):
  """How the blocks are stacked, and how they are to be."""

  stacks: blocks.Stacks
  wanted: blocks.Stacks
  spare: int  # Moves that are left beyond a shortest plan.
  turn: int = 0
  ended: bool = False


class Blocks:
  """A turn is a move: `<tool>c b</tool>` puts c on b, `c -` on the table.

  A task is one of `tasks.blocks`. With all blocks where they are wanted the
  episode ends with the final reward 1. What does not bring a plan closer uses
  up spare moves, and where there are none left the episode ends with 0: then a
  mistake cannot be undone.
  """

  def __init__(
    self,
    *,
    max_turns: int = 16,
    spare: int = 4,
    observability: str = 'full',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      spare: turns beyond those of a shortest plan; with 0 every mistake is
        the last.
      observability: 'full' shows the stacks; 'partial' only their tops.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or spare < 0:
      raise ValueError(
        'Blocks have at least 1 turn and 0 spare ones; got '
        f'{max_turns=}, {spare=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._spare = spare

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The blocks. The seed is not used.

    Raises:
      ValueError: if the prompt is no two arrangements.
    """
    del seed
    state = State(*blocks.read(task.prompt), self._spare)
    return types.Transition(
      state, types.Observation(task.prompt), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The blocks after a move. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    calls = _GRAMMAR.parse(action).calls
    words = base.clean(calls[0].arguments).split() if calls else []
    after, error = None, 'BLOCK BLOCK or BLOCK -'
    if len(words) == 2:
      after = blocks.move(state.stacks, blocks.Move(*words))
      error = f'{words[0]} cannot go to {words[1]}'[:40]
    stacks = after or state.stacks
    left = blocks.distance(stacks, state.wanted)
    due = blocks.distance(state.stacks, state.wanted)
    spare = state.spare - (left - due + 1)
    turn = state.turn + 1
    lost = spare < 0
    truncated = bool(left) and not lost and turn >= self.max_turns
    state = State(
      stacks, state.wanted, max(spare, 0), turn, lost or truncated or not left
    )
    says = self._show(stacks) if after else f'error: {error}'
    return types.Transition(
      state,
      types.Observation(says),
      {'final': float(not left)} if lost or not left else {},
      terminated=lost or not left,
      truncated=truncated,
      state_key=_key(state),
    )

  def _show(self, stacks: blocks.Stacks) -> str:
    if self.observability == 'full':
      return blocks.show(stacks)
    return ' '.join(sorted(stack[-1] for stack in stacks))

  def admissible(self, state: State) -> tuple[str, ...]:
    """The moves that can be made; one that cannot where there is none."""
    possible = map(str, blocks.moves(state.stacks))
    return tuple(f'<tool>{step}</tool>' for step in possible) or (
      '<tool>a -</tool>',
    )

  def privileged(self, state: State) -> str:
    """How the blocks are stacked, and how they are to be."""
    return _key(state)

  def oracle(self, state: State) -> str:
    """The next move of a shortest plan."""
    steps = blocks.plan(state.stacks, state.wanted)
    return f'<tool>{steps[0] if steps else "a -"}</tool>'


def _key(state: State) -> str:
  now, wanted = blocks.show(state.stacks), blocks.show(state.wanted)
  return f'{now}>{wanted} {state.spare}'
