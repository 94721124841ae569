"""Long jobs that mix search, SQL, Python, files and a memory."""

from collections.abc import Mapping
import hashlib
from typing import NamedTuple

from agentic_jax import memory
from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import kb_search
from agentic_jax.tasks import workbench
from agentic_jax.tools import base as tools_base
from agentic_jax.tools import files
from agentic_jax.tools import python as python_tool
from agentic_jax.tools import python_expression
from agentic_jax.tools import sandbox
from agentic_jax.tools import sql

PYTHONS = ('expression', 'sandbox')
_EMPTY = memory.Store(words=False).snapshot()
_NAMES = 'search sql python read write list'
_CAPACITY = 40  # Entries of the memory,
_LONGEST = 40  # and characters of one.


class State(NamedTuple):
  """What lies on the bench, and what was found out."""

  prompt: str
  answer: str
  bench: workbench.Bench
  limit: int  # Of turns.
  files: files.Files
  bank: bytes = _EMPTY  # A snapshot of the memory.
  notes: tuple[str, ...] = ()  # What is in it.
  known: tuple[tuple[str, str], ...] = ()  # Sorted: calls, and their answers.
  most: int = 0  # Wanted files and notes that were right at once.
  turn: int = 0
  ended: bool = False


class Workbench:
  """A turn is a call of a tool, an operation on the memory, or the answer.

  A task is one of `tasks.workbench`, where jobs are explained. The tools:

    <tool>search owl12</tool>                 the passage that fits best
    <tool>sql SELECT pay FROM t WHERE name='oslo'</tool>
    <tool>python (47*3+5)%10</tool>
    <tool>read rate.txt</tool>                a file,
    <tool>read todo.txt 3</tool>              or one line of it
    <tool>write a.txt 146</tool>              <tool>list</tool>
    <memory>add a 146</memory>                <memory>search a</memory>

  An entry of the memory is found by its first word. An answer ends the episode:
  the final reward is 1 if it is the right number, and all files and notes that
  the job asks for are as they have to be. How many turns a job takes is its
  difficulty; the world truncates an episode after that and `spare` more.
  """

  def __init__(
    self,
    *,
    spare: int = 8,
    python: str = 'expression',
    max_characters: int = 200,
    process_reward: float = 0.0,
    call_price: float = 0.0,
    error_price: float = 0.0,
    observability: str = 'partial',
    back_end: str = 'bubblewrap',
    limit_seconds: float = 2.0,
  ):
    """Makes the world.

    Args:
      spare: turns besides those that the job takes.
      python: 'expression' computes and never runs anything; 'sandbox' runs
        programs in the sandbox.
      max_characters: of what answers a call; the rest is cut off.
      process_reward: of all files and notes that a job asks for; paid in
        shares, as more of them are right at once.
      call_price: taken from the auxiliary reward for each call.
      error_price: taken in addition for one that fails.
      observability: 'partial' shows the job; 'full' also all that lies ready.
      back_end: of the sandbox.
      limit_seconds: of processor time there, for a program.

    Raises:
      ValueError: if a setting is out of its range.
      RuntimeError: if there is no sandbox on this machine, and it is asked for.
    """
    if python not in PYTHONS:
      raise ValueError(
        f'python is one of {", ".join(PYTHONS)}, got {python!r}.'
      )
    if min(spare, process_reward, call_price, error_price) < 0 or (
      max_characters < 1
    ):
      raise ValueError(
        'A bench shows at least 1 character, and turns to spare, rewards and '
        f'prices are not negative; got {spare=}, {max_characters=}, '
        f'{process_reward=}, {call_price=}, {error_price=}.'
      )
    base.check_observability(observability)
    limits = sandbox.Limits(
      processor_seconds=limit_seconds, wall_seconds=5 * limit_seconds
    )
    self._box = (back_end, limits) if python == 'sandbox' else None
    # Says what is missing before a run starts.
    self.isolation = ''
    if self._box:
      self.isolation = sandbox.shared(*self._box).isolation
    # The longest jobs that there are tasks for.
    self.max_turns = max(workbench.LONG_LENGTHS) + spare
    self.observability = observability
    self.grammar = protocol.Grammar(memory='memory')
    self._spare, self._max_characters = spare, max_characters
    self._process_reward = process_reward
    self._call_price, self._error_price = call_price, error_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The job. The seed is not used.

    Raises:
      ValueError: if the task has no bench.
    """
    del seed
    bench = workbench.read(task.data)
    sql.made(bench.sql)  # Says what is wrong with the script.
    lines = workbench.lines(task.prompt, dict(bench.files))
    limit = sum(map(len, lines)) + self._spare + 1
    limit += len(lines) if workbench.lines_of(task.prompt) else 0
    state = State(task.prompt, task.answer, bench, limit, bench.files)
    says = task.prompt
    if self.observability == 'full':
      ready = [f'{path}: {text}' for path, text in bench.files]
      says = '\n'.join([says, '; '.join(bench.passages), bench.sql, *ready])
    return types.Transition(
      state, types.Observation(says), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What a call finds or does, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = self.grammar.parse(action)
    after = state._replace(turn=state.turn + 1)
    if parsed.answer is not None:
      return _end(after, parsed.answer)
    price = self._call_price
    try:
      if not parsed.valid:
        raise tools_base.ToolError(parsed.error)
      after, says = self._call(after, *parsed.calls[0])
    except (tools_base.ToolError, memory.WrongOperation) as error:
      says = f'error: {error}'
      price += self._error_price
    reward = {'auxiliary': -price} if price else {}
    wanted, right = _progress(after)
    if self._process_reward and right > state.most:
      gained = (right - state.most) / wanted
      reward['process'] = self._process_reward * gained
    truncated = after.turn >= state.limit
    after = after._replace(most=max(right, state.most), ended=truncated)
    return types.Transition(
      after,
      types.Observation(says[: self._max_characters]),
      reward,
      truncated=truncated,
      state_key=_key(after),
    )

  def _call(self, state: State, kind: str, text: str) -> tuple[State, str]:
    """The state after a call, and what it says.

    Raises:
      tools_base.ToolError: the call failed.
      memory.WrongOperation: the operation on the memory did.
    """
    text = base.clean(' '.join(text.split()) if kind else text.strip())
    before = state
    if kind:
      state, says = _remember(state, text)
    else:
      name, _, rest = text.partition(' ')
      state, says = self._use(state, name, rest.strip())
    known = dict(state.known) | {f'{kind} {text}'.strip(): says}
    # What was found in what has changed since is known no longer.
    gone = {f'read {path}' for path, _ in {*before.files} ^ {*state.files}}
    changed = {*before.notes} ^ {*state.notes}
    gone |= {f'memory search {note.partition(" ")[0]}' for note in changed}
    for call in known.keys() & gone:
      del known[call]
    return state._replace(known=tuple(sorted(known.items()))), says

  def _use(self, state: State, name: str, rest: str) -> tuple[State, str]:
    """The state after a call of a tool, and what it says."""
    match name:
      case 'search':
        found = kb_search.search(state.bench.passages, rest[:200], 1)
        return state, found[0] if found else 'nothing found'
      case 'sql':
        return state, sql.query(rest, state=sql.made(state.bench.sql))[1]
      case 'python' if self._box:
        box = sandbox.shared(*self._box)
        return state, python_tool.run(rest, sandbox=box)
      case 'python':
        return state, python_expression.evaluate(rest)
      case 'list':
        return state, files.list_files(state=state.files)[1]
      case 'read':
        path, _, line = rest.partition(' ')
        if not line:
          return state, files.read_file(path, state=state.files)[1]
        if not line.isdecimal() or len(line) > 6:
          raise tools_base.ToolError('read wants a path and perhaps a line')
        return state, files.read_file(path, int(line), 1, state=state.files)[1]
      case 'write':
        path, _, written = rest.partition(' ')
        now, says = files.write_file(path, written, state=state.files)
        return state._replace(files=now), says
    raise tools_base.ToolError(f'one of {_NAMES}')

  def admissible(self, state: State) -> tuple[str, ...]:
    """A look around, some calls, what is due next, and a wrong answer."""
    return (
      '<tool>list</tool>',
      '<tool>read rate.txt</tool>',
      '<tool>write a.txt 1</tool>',
      '<memory>add a 1</memory>',
      '<memory>search a</memory>',
      self.oracle(state),
      '<answer>0</answer>',
    )

  def privileged(self, state: State) -> str:
    """The answer, and what is wanted of files and memory."""
    wanted = [f'{path} {text}' for path, text in state.bench.wanted_files]
    return '; '.join([state.answer, *wanted, *state.bench.wanted_notes])

  def oracle(self, state: State) -> str:
    """The next call that the job asks for, or the answer."""
    return workbench.due(
      state.prompt, dict(state.known), dict(state.files), state.notes
    )


def _remember(state: State, text: str) -> tuple[State, str]:
  operation = memory.read(text)
  if len(operation.text) > _LONGEST:
    raise memory.WrongOperation(f'more than {_LONGEST} characters')
  key = operation.text.partition(' ')[0]
  bank = memory.Store.of(state.bank, capacity=_CAPACITY)
  try:
    says = memory.apply(bank, operation, at=state.turn, key=key)
    if operation.name == 'search':
      return state, says
    notes = tuple(entry.text for entry in bank.entries())
    return state._replace(bank=bank.snapshot(), notes=notes), says
  finally:
    bank.close()


def _progress(state: State) -> tuple[int, int]:
  """How many files and notes are wanted, and how many are right."""
  held: Mapping[str, str] = dict(state.files)
  bench = state.bench
  right = sum(
    held.get(path, '').strip() == text for path, text in bench.wanted_files
  )
  right += sum(note in state.notes for note in bench.wanted_notes)
  return len(bench.wanted_files) + len(bench.wanted_notes), right


def _end(state: State, said: str) -> types.Transition:
  wanted, right = _progress(state)
  score = answers.numeric(said, state.answer) if wanted == right else 0.0
  state = state._replace(ended=True)
  return types.Transition(
    state,
    types.Observation(''),
    {'final': score},
    terminated=True,
    state_key=_key(state),
  )


def _key(state: State) -> str:
  held = repr((state.known, state.files, state.notes)).encode()
  return f'{state.prompt}|{hashlib.blake2b(held, digest_size=8).hexdigest()}'
