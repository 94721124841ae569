"""A document too long to be kept: what is needed must be written down."""

import functools
import random
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import long_doc

_read = functools.lru_cache(4096)(long_doc.chunks)


class State(NamedTuple):
  """What is asked, and how much was shown."""

  answer: str
  facts: tuple[tuple[str, str], ...]
  seed: int  # Of the reset: the chance of the scripted solver.
  shown: int = 0  # Chunks so far.
  turn: int = 0
  ended: bool = False


class LongDoc:
  """A turn rewrites the memory, `<memory>ka7</memory>`, and is shown a chunk.

  A task is one of `tasks.long_doc`. The question opens the episode, each turn
  is answered by the next chunk, and the last chunk by `end`; then comes the
  answer, `<answer>7 3</answer>`, which ends the episode with the final reward 1
  if it is right. The world keeps no memory: what the policy wrote is what its
  context keeps, under keep_last?turns=1 the memory alone, overwritten with each
  chunk.
  """

  def __init__(
    self,
    *,
    chunks: int = 4,
    size: int = 4,
    capacity: int = 32,
    observability: str = 'partial',
    skill: float = 1.0,
  ):
    """Makes the world.

    Args:
      chunks: of the document: the same questions can be asked of any length.
      size: facts of a chunk.
      capacity: the most characters of a memory; a longer one is an error, and
        the chunk is not shown.
      observability: 'partial' shows a chunk a turn; 'full' all that were shown,
        whatever was written down.
      skill: how often the oracle writes a fact, each time that it rewrites the
        memory; what it has lost it guesses.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if min(chunks, capacity) < 1 or size < 4 or not 0 <= skill <= 1:
      raise ValueError(
        'A document has at least 1 chunk of 4 facts, a memory 1 character, and '
        f'skill is a probability; got {chunks=}, {size=}, {capacity=}, '
        f'{skill=}.'
      )
    base.check_observability(observability)
    self.max_turns = chunks + 4
    self.observability = observability
    self.grammar = protocol.Grammar(memory='memory')
    self._chunks, self._size, self._capacity = chunks, size, capacity
    self._skill = skill

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The question. The seed is the oracle's.

    Raises:
      ValueError: if the task has no facts, or more than a chunk holds.
    """
    facts = long_doc.facts_of(task.data)
    if len(facts) > self._size:
      raise ValueError(
        f'A question about {len(facts)} names wants size={len(facts)} or more, '
        f'got {self._size}.'
      )
    state = State(task.answer, facts, seed)
    return types.Transition(
      state, types.Observation(task.prompt), state_key=self._key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The next chunk, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = self.grammar.parse(action)
    turn = state.turn + 1
    if parsed.answer is not None:
      after = state._replace(turn=turn, ended=True)
      return types.Transition(
        after,
        types.Observation(''),
        {'final': answers.exact(parsed.answer, state.answer)},
        terminated=True,
        state_key=self._key(after),
      )
    fault = parsed.error
    if parsed.calls:
      long = len(parsed.calls[0].arguments) > self._capacity
      fault = f'more than {self._capacity} characters' if long else ''
      fault = fault if parsed.calls[0].name else 'no tool here'
    shown = state.shown + (not fault and state.shown <= self._chunks)
    after = state._replace(shown=shown, turn=turn, ended=turn >= self.max_turns)
    return types.Transition(
      after,
      types.Observation(f'error: {fault}' if fault else self._show(after)),
      truncated=after.ended,
      state_key=self._key(after),
    )

  def _show(self, state: State) -> str:
    document = _read(state.facts, self._chunks, self._size)
    first = 0 if self.observability == 'full' else state.shown - 1
    lines = [' '.join(chunk) for chunk in document[first : state.shown]]
    return '\n'.join(lines + ['end'] * (state.shown > self._chunks))

  def _key(self, state: State) -> str:
    names = ' '.join(name for name, _ in state.facts)
    return f'{names} {state.shown}{" ended" if state.ended else ""}'

  def admissible(self, state: State) -> tuple[str, ...]:
    """A memory, and a wrong answer."""
    del state
    return '<memory></memory>', '<memory>a1</memory>', '<answer>-</answer>'

  def privileged(self, state: State) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: State) -> str:
    """The memory of what it has noticed so far, or the answer."""
    document = _read(state.facts, self._chunks, self._size)
    rng = random.Random(state.seed)
    written, memory = min(state.shown, self._chunks), list[str]()
    lasting = [base.lasting(rng, self._skill) for _ in state.facts]
    said = list[str]()
    for (name, digit), lasts in zip(state.facts, lasting, strict=True):
      (place,) = (
        at for at, chunk in enumerate(document) if name + digit in chunk
      )
      kept = 0 < written - place <= lasts
      memory += [name + digit] * kept
      said.append(digit if kept else str(rng.randrange(10)))
    if state.shown <= self._chunks:
      return f'<memory>{" ".join(memory)}</memory>'
    return f'<answer>{" ".join(said)}</answer>'
