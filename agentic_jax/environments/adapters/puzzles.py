"""Puzzles of reasoning-gym, with the package's verifiers."""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.tasks import seeds
from agentic_jax.tasks import splits

# Verifiers that can be had for nothing, and what they do.
REFUSED = {
  'coin_flip': 'scores 0 as right whatever the probability is',
  'composite': 'is made of others; name one of them',
  'game_of_life_halting': 'scores any text as true',
}
_MOST_DRAWS = 400
_GRAMMAR = protocol.Grammar()


class State(NamedTuple):
  """A puzzle, which is never changed, and whether it was answered."""

  entry: Mapping[str, Any]
  ended: bool = False


class Puzzles:
  """One turn, the answer: `<answer>42</answer>`.

  A task is a seed. Its puzzle is the first among those of the seed's own
  numbers whose question falls into the split of the seed, by the hash of
  `tasks.splits`: no question is in two splits. A verifier that raises, as some
  do at what is no number, has found no right answer.
  """

  max_turns = 1
  observability = 'full'

  def __init__(
    self, name: str, *, partial: bool = False, settings: Mapping[str, Any]
  ):
    """Makes a generator.

    Args:
      name: of a data set of reasoning-gym.
      partial: whether a score between 0 and 1 is a reward; else only 1 is.
      settings: of the data set's configuration, such as min_terms.

    Raises:
      ValueError: the extra is missing; there is no such data set, its verifier
        can be cheated, or a setting is out of its range.
    """
    if name in REFUSED:
      raise ValueError(
        f'The puzzles {name} of reasoning-gym {REFUSED[name]}; take others.'
      )
    self._factory = live.package('reasoning_gym.factory', 'reasoning_gym')
    if name not in self._factory.DATASETS:
      raise ValueError(
        f'reasoning-gym has no puzzles {name!r}; name one as in '
        'reasoning_gym?name=chain_sum. It has '
        f'{", ".join(sorted(set(self._factory.DATASETS) - set(REFUSED)))}.'
      )
    self._name = name
    self._settings = dict(settings)
    self._partial = partial
    try:
      self._verifier = self._puzzles(0)
    except (AssertionError, TypeError, ValueError) as error:
      raise ValueError(
        f'reasoning-gym cannot make {name} with {self._settings}: {error}'
      ) from error

  def __getstate__(self) -> dict[str, Any]:
    # A module cannot be sent.
    return vars(self) | {'_factory': None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    vars(self).update(state)
    self._factory = live.package('reasoning_gym.factory', 'reasoning_gym')

  def _puzzles(self, number: int) -> Any:
    settings = self._settings | {'seed': number, 'size': 1}
    return self._factory.create_dataset(self._name, **settings)

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The puzzle of a task's seed. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed, or too few of the questions that
        there are fall into its split.
    """
    del seed
    split = splits.split_of(task.prompt)
    for number in seeds.draws(task.prompt)[:_MOST_DRAWS]:
      entry = self._puzzles(number)[0]
      question = str(entry['question'])
      if splits.split_of(question) == split:
        return types.Transition(
          State(entry), types.Observation(question), state_key=question
        )
    raise ValueError(
      f'None of {_MOST_DRAWS} puzzles {self._name} is of the split {split}: '
      'there are too few different ones. Make them harder by the settings.'
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The score of an answer. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    answer = _GRAMMAR.parse(action).answer
    score = 0.0 if answer is None else self._score(answer.strip(), state.entry)
    return types.Transition(
      state._replace(ended=True),
      types.Observation(''),
      {'final': score if self._partial else float(score == 1)},
      terminated=True,
    )

  def _score(self, answer: str, entry: Mapping[str, Any]) -> float:
    try:
      score = float(self._verifier.score_answer(answer, entry))
    except Exception:  # It did not expect such an answer.
      return 0.0
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


class Answered(Puzzles):
  """Puzzles that come with an answer."""

  def admissible(self, state: State) -> tuple[str, ...]:
    """An answer that is hardly right, and the right one."""
    return ('<answer>0</answer>', self.oracle(state))

  def privileged(self, state: State) -> str:
    """The answer."""
    return str(state.entry['answer'])

  def oracle(self, state: State) -> str:
    """Says the answer."""
    return f'<answer>{state.entry["answer"]}</answer>'


def by_name(
  *, name: str = '', partial: bool = False, **settings: Any
) -> Puzzles:
  """Puzzles by the name of a data set, with an oracle where they have answers.

  Args:
    name: such as chain_sum.
    partial: see `Puzzles`.
    **settings: see `Puzzles`.

  Raises:
    ValueError: see `Puzzles`.
  """
  made = Puzzles(name, partial=partial, settings=settings)
  # Of some only the verifier knows.
  if made.reset(types.Task(0, 'seed 0'), 0).state.entry['answer'] is None:
    return made
  return Answered(name, partial=partial, settings=settings)
