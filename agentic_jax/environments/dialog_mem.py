"""A dialogue to be remembered in a bank that holds little."""

from collections.abc import Sequence
from typing import NamedTuple

from agentic_jax import memory
from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import dialog_mem

_LONGEST = 24  # Characters of an entry.
_EMPTY = memory.Store(words=False).snapshot()


class State(NamedTuple):
  """How far the dialogue is, and what is remembered."""

  dialogue: dialog_mem.Dialogue
  bank: bytes = _EMPTY  # A snapshot of the store.
  entries: tuple[memory.Entry, ...] = ()  # What is in it.
  place: int = 0  # Lines and questions so far.
  turn: int = 0
  ended: bool = False

  @property
  def line(self) -> str:
    """What is said now; '' in the end."""
    lines = self.dialogue.lines + self.dialogue.questions
    return lines[self.place] if self.place < len(lines) else ''

  @property
  def asked(self) -> bool:
    """Whether this is a question."""
    return self.place >= len(self.dialogue.lines)


class DialogMem:
  """A turn is an operation on the bank, or the answer to a question.

  A task is one of `tasks.dialog_mem`. Each line is shown with what the bank has
  about it, such as `ka pet owl | 1 ka pet dog`, and waits for one operation of
  `memory.read`; entries are found by their first two words:

    <memory>add ka pet owl</memory>     <memory>update 1 ka pet owl</memory>
    <memory>delete 1</memory>           <memory>noop</memory>

  `<memory>search ka pet</memory>` takes a turn and leaves the line; so does
  what is no operation, and an entry too many. Then come the questions, each for
  its share of the final reward: `ka pet? | 1 ka pet owl`. How much of the bank
  is right in the end says `correctness`; it is a process reward of its own
  where `bank_reward` is not 0, which the answers alone do not pay for.
  """

  def __init__(
    self,
    *,
    capacity: int = 4,
    spare: int = 6,
    bank_reward: float = 0.0,
    operation_price: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      capacity: the most entries of the bank.
      spare: turns besides one for each line and question.
      bank_reward: of a bank that is right in the end; part of it for a part.
      operation_price: taken from the auxiliary reward for each but noop.
      observability: 'partial' shows the entries that a line is about; 'full'
        the whole bank.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if capacity < 1 or min(spare, bank_reward, operation_price) < 0:
      raise ValueError(
        'A bank holds at least 1 entry, and turns to spare, rewards and prices '
        f'are not negative; got {capacity=}, {spare=}, {bank_reward=}, '
        f'{operation_price=}.'
      )
    base.check_observability(observability)
    # The longest dialogues that there are tasks for.
    self.max_turns = 19 + spare
    self.observability = observability
    self.grammar = protocol.Grammar(memory='memory')
    self._capacity, self._spare = capacity, spare
    self._bank_reward, self._price = bank_reward, operation_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The first line. The seed is not used.

    Raises:
      ValueError: if the prompt is no dialogue.
    """
    del seed
    state = State(dialog_mem.read(task.prompt))
    return types.Transition(
      state,
      types.Observation(self._show(state)),
      state_key=self._key(state),
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What follows an operation or an answer. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = self.grammar.parse(action)
    reward, says = dict[str, float](), ''
    after = state._replace(turn=state.turn + 1)
    if parsed.answer is not None and state.asked:
      reward['final'] = self._score(state, parsed.answer)
      after = after._replace(place=state.place + 1)
    elif parsed.calls and parsed.calls[0].name:
      try:
        said = base.clean(parsed.calls[0].arguments)
        after, says = self._do(after, said)
        done = not says.startswith('found')
        after = after._replace(place=state.place + (done and not state.asked))
        if says != 'ok' and self._price:
          reward['auxiliary'] = -self._price
        says = '' if done else says
      except memory.WrongOperation as error:
        says = f'error: {error}'
    else:
      wanted = 'answer' if state.asked else 'an operation'
      says = f'error: {parsed.error or f"wants {wanted}"}'
    limit = len(sum(state.dialogue, ())) + self._spare
    ends = not after.line
    after = after._replace(ended=ends or after.turn >= limit)
    if ends and self._bank_reward:
      reward['process'] = self._bank_reward * self.correctness(after)
    shown = self._show(after)
    return types.Transition(
      after,
      types.Observation(f'{says}; {shown}' if says else shown),
      reward,
      terminated=ends,
      truncated=after.ended and not ends,
      state_key=self._key(after),
    )

  def correctness(self, state: State) -> float:
    """How much of the bank holds, and of what holds is in the bank.

    |bank ∩ truth| / |bank ∪ truth|, 1 where both are empty, in [0, 1].
    """
    said = state.dialogue.lines[: state.place]
    holds = {f'{k} {v}' for k, v in dialog_mem.truth(said).items()}
    entries = [entry.text for entry in state.entries]
    both = holds & set(entries)
    # What is there twice is wrong once.
    either = len(holds - both) + len(entries)
    return len(both) / either if either else 1.0

  def admissible(self, state: State) -> tuple[str, ...]:
    """Answers, or operations of all kinds."""
    if state.asked:
      return '<answer>none</answer>', self.oracle(state)
    texts = ('noop', f'add {state.line}', 'delete 1', f'search {state.line}')
    return tuple(f'<memory>{text}</memory>' for text in texts)

  def privileged(self, state: State) -> str:
    """What holds at the end of the dialogue."""
    holds = dialog_mem.truth(state.dialogue.lines)
    return '; '.join(f'{about} {said}' for about, said in holds.items())

  def oracle(self, state: State) -> str:
    """What keeps the bank right by rule; answers by what it has."""
    if state.asked:
      found = _about(state, state.line)
      value = found[0].text.split()[-1] if found else 'none'
      return f'<answer>{value}</answer>'
    said = dialog_mem.statement(state.line)
    if said is None:
      return '<memory>noop</memory>'
    found = _about(state, said[0])
    text = 'noop'
    if found and said[1] == '-':
      text = f'delete {found[0].id}'
    elif found and found[0].text != state.line:
      text = f'update {found[0].id} {state.line}'
    elif not found and said[1] != '-' and len(state.entries) < self._capacity:
      text = f'add {state.line}'
    return f'<memory>{text}</memory>'

  def _do(self, state: State, text: str) -> tuple[State, str]:
    """Does an operation: what the bank is then, and what to say."""
    operation = memory.read(text)
    if operation.name == 'noop':
      return state, 'ok'
    if len(operation.text) > _LONGEST:
      raise memory.WrongOperation(f'more than {_LONGEST} characters')
    about = ' '.join(operation.text.split()[:2])
    if operation.name == 'search':
      return state, f'found {_tell(_about(state, about))}'
    bank = memory.Store.of(state.bank, capacity=self._capacity)
    says = memory.apply(bank, operation, at=state.turn, key=about)
    held = bank.snapshot(), tuple(bank.entries())
    bank.close()
    return state._replace(bank=held[0], entries=held[1]), says

  def _score(self, state: State, said: str) -> float:
    holds = dialog_mem.truth(state.dialogue.lines)
    share = 1 / len(state.dialogue.questions)
    return share * answers.exact(said, holds[state.line])

  def _show(self, state: State) -> str:
    if not state.line:
      return ''
    about = ' '.join(state.line.split()[:2])
    found = _about(state, about)
    if self.observability == 'full':
      found = state.entries
    mark = '?' if state.asked else ''
    return state.line + mark + (f' | {_tell(found)}' if found else '')

  def _key(self, state: State) -> str:
    end = ' ended' if state.ended else ''
    return f'{state.place} {state.line} | {_tell(state.entries)}{end}'


def _about(state: State, key: str) -> tuple[memory.Entry, ...]:
  """The entries of a key, the newest first."""
  return tuple(e for e in reversed(state.entries) if e.key == key)


def _tell(entries: Sequence[memory.Entry]) -> str:
  return ', '.join(f'{entry.id} {entry.text}' for entry in entries)
