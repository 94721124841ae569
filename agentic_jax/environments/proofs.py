"""Theorems of propositional logic, proved tactic by tactic."""

from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import proofs

_GRAMMAR = protocol.Grammar()


class State(NamedTuple):
  """What is left to prove."""

  goals: proofs.Goals
  turn: int = 0
  ended: bool = False


class Proofs:
  """A turn is a tactic, such as `<tool>apply h2</tool>`.

  A task's prompt is a proposition of `tasks.proofs`. The kernel there is the
  only judge: with no goal left the episode ends with the final reward 1. A
  tactic that does not fit is answered by `error: ` and a few words, changes
  nothing, and costs its price.
  """

  def __init__(
    self,
    *,
    max_turns: int = 24,
    error_price: float = 0.0,
    observability: str = 'full',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      error_price: taken from the auxiliary reward for what does not fit.
      observability: 'full' shows the first goal and how many there are;
        'partial' only its claim.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or error_price < 0:
      raise ValueError(
        'Proofs have at least 1 turn and no negative price; got '
        f'{max_turns=}, {error_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._error_price = error_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The theorem. The seed is not used.

    Raises:
      ValueError: if the prompt is no proposition.
    """
    del seed
    state = State((proofs.Goal((), proofs.read(task.prompt)),))
    return types.Transition(
      state, types.Observation(task.prompt), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What is left to prove. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    goals, error = state.goals, parsed.error
    if not error and not parsed.calls:
      error = 'a proof has no answer, only tactics'
    if not error:
      try:
        goals = proofs.apply(goals, parsed.calls[0].arguments)
      except proofs.WrongTactic as wrong:
        error = str(wrong)
    turn = state.turn + 1
    proved = not goals
    truncated = not proved and turn >= self.max_turns
    price = self._error_price if error else 0.0
    state = State(goals, turn, proved or truncated)
    return types.Transition(
      state,
      types.Observation(f'error: {error}' if error else self._show(goals)),
      ({'auxiliary': -price} if price else {})
      | ({'final': 1.0} if proved else {}),
      terminated=proved,
      truncated=truncated,
      state_key=_key(state),
    )

  def _show(self, goals: proofs.Goals) -> str:
    if not goals:
      return 'proved'
    if self.observability == 'partial':
      return str(goals[0].claim)
    more = f' and {len(goals) - 1} more' if len(goals) > 1 else ''
    return f'{goals[0]}{more}'

  def admissible(self, state: State) -> tuple[str, ...]:
    """The tactics that fit; one that always does where the proof is over."""
    fitting = [tactic for tactic, _ in proofs.possible(state.goals)]
    return tuple(f'<tool>{tactic}</tool>' for tactic in fitting or ['exfalso'])

  def privileged(self, state: State) -> str:
    """All goals."""
    return _key(state)

  def oracle(self, state: State) -> str:
    """The next tactic of a shortest proof, or any where none was found."""
    proof = proofs.prove(state.goals[:1]) or ['exfalso']
    return f'<tool>{proof[0]}</tool>'


def _key(state: State) -> str:
  return '; '.join(map(str, state.goals))
