"""Programs that are written, compiled, tested and mended."""

import json
import random
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import mini_code
from agentic_jax.tasks import mini_language
from agentic_jax.tools import sandbox

_GRAMMAR = protocol.Grammar()
_MOST_TOLD = 3  # Tests that failed, in an observation.
LANGUAGES = ('mini', 'python')
# Only inputs go into the sandbox, and outputs are compared outside.
_HARNESS = """
def _output(x):
  try:
    return f(x)
  except Exception as error:
    return type(error).__name__
print()
print(__import__('json').dumps([_output(x) for x in {inputs}]))
"""


class _NotCompiled(Exception):
  """A program that is none; the message is short."""


class State(NamedTuple):
  """The visible tests, and what has been tried."""

  visible: mini_code.Tests
  answer: str  # A program that is right; never shown.
  tried: str = ''  # The last program that was compiled.
  most_passed: int = 0
  turn: int = 0
  ended: bool = False


class MiniCode:
  """A turn tries a program, such as `<tool>x 3 * 1 +</tool>`, or answers one.

  A task's prompt is its visible tests. A program that is tried is compiled, and
  the visible tests that fail are told. An answer ends the episode: the final
  reward is 1 if the program passes all hidden tests. An empty answer submits
  the last program that was compiled.
  """

  def __init__(
    self,
    *,
    language: str = 'mini',
    max_turns: int = 6,
    process_reward: float = 0.0,
    compile_price: float = 0.0,
    observability: str = 'full',
    scored: str = 'hidden',
    back_end: str = 'bubblewrap',
    limit_seconds: float = 2.0,
  ):
    """Makes the world.

    Args:
      language: 'mini', of `tasks.mini_language`, or 'python', where a program
        defines f and runs in the sandbox.
      max_turns: after this many the world truncates the episode.
      process_reward: of all visible tests; paid in shares, as more pass.
      compile_price: taken from the auxiliary reward for what is no program.
      observability: 'full' tells what fails, 'partial' how many pass.
      scored: which tests an answer is to pass: 'hidden', or 'visible', which
        pays for what knows them by heart.
      back_end: of the sandbox, for 'python'.
      limit_seconds: of processor time there, for all tests of a program.

    Raises:
      ValueError: if a setting is out of its range.
      RuntimeError: if there is no sandbox for 'python' on this machine.
    """
    if language not in LANGUAGES:
      raise ValueError(
        f'language is one of {", ".join(LANGUAGES)}, got {language!r}.'
      )
    if max_turns < 1 or process_reward < 0 or compile_price < 0:
      raise ValueError(
        'Programs have at least 1 turn and no negative reward or price; got '
        f'{max_turns=}, {process_reward=}, {compile_price=}.'
      )
    base.check_observability(observability)
    if scored not in ('hidden', 'visible'):
      raise ValueError(f"scored is 'hidden' or 'visible', got {scored!r}.")
    limits = sandbox.Limits(
      processor_seconds=limit_seconds, wall_seconds=5 * limit_seconds
    )
    self._box = back_end, limits
    # Says what is missing before a run starts.
    self.isolation = ''
    if language == 'python':
      self.isolation = sandbox.shared(*self._box).isolation
    self.max_turns = max_turns
    self.observability = observability
    self._scored = scored
    self._language = language
    self._process_reward = process_reward
    self._compile_price = compile_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The visible tests. The seed is not used.

    Raises:
      ValueError: if the prompt has no tests.
    """
    del seed
    state = State(mini_code.read(task.prompt), task.answer)
    return types.Transition(
      state, types.Observation(task.prompt), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What came of a program. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    state = state._replace(turn=state.turn + 1)
    if parsed.valid and parsed.answer is not None:
      return self._submit(state, parsed.answer.strip() or state.tried)
    reward = {}
    try:
      if not parsed.valid:
        raise _NotCompiled(parsed.error)
      state, said, gained = self._try(state, parsed.calls[0].arguments)
      if gained and self._process_reward:
        reward = {'process': self._process_reward * gained}
    except _NotCompiled as error:
      said = f'error: {error}'
      if self._compile_price:
        reward = {'auxiliary': -self._compile_price}
    truncated = state.turn >= self.max_turns
    state = state._replace(ended=truncated)
    return types.Transition(
      state,
      types.Observation(said),
      reward,
      truncated=truncated,
      state_key=_key(state),
    )

  def _submit(self, state: State, program: str) -> types.Transition:
    """The end: tests score, and nothing is told of them."""
    state = state._replace(tried=program, ended=True)
    inputs = state.visible.inputs
    if self._scored == 'hidden':
      inputs = mini_code.hidden(state.visible)
    try:
      wanted = mini_code.outputs(state.answer, inputs)
      passed = self._run(program, inputs) == list(wanted)
    except (_NotCompiled, mini_language.WrongProgram, mini_language.WrongRun):
      passed = False
    return types.Transition(
      state,
      types.Observation('submitted'),
      {'final': 1.0} if passed else {},
      terminated=True,
      state_key=_key(state),
    )

  def _try(self, state: State, program: str) -> tuple[State, str, float]:
    """The next state, what is said, and the share of tests newly passed."""
    inputs, wanted = state.visible
    got = self._run(program, inputs)
    failed = [
      f'{x}>{y} got {z}' for x, y, z in zip(inputs, wanted, got) if y != z
    ]
    passed = len(inputs) - len(failed)
    said = f'{passed} of {len(inputs)} pass'
    if failed and self.observability == 'full':
      said += '; ' + ', '.join(failed[:_MOST_TOLD])
    gained = max(passed - state.most_passed, 0) / len(inputs)
    state = state._replace(
      tried=program, most_passed=max(passed, state.most_passed)
    )
    return state, said, gained

  def _run(self, program: str, inputs: tuple[int, ...]) -> list[int | str]:
    """The output for each input, or the words of its error.

    Raises:
      _NotCompiled: the text is no program.
    """
    if self._language == 'python':
      return _run_python(program, inputs, sandbox.shared(*self._box))
    try:
      compiled = mini_language.read(program)
    except mini_language.WrongProgram as wrong:
      raise _NotCompiled(str(wrong)) from None
    found: list[int | str] = []
    for x in inputs:
      try:
        found.append(mini_language.run(compiled, x))
      except mini_language.WrongRun as wrong:
        found.append(str(wrong))
    return found

  def admissible(self, state: State) -> tuple[str, ...]:
    """Some simple programs, and to submit what was tried."""
    some = ['x', 'x 1 +', 'x 2 *', 'x d *', '0 x -']
    if self._language == 'python':
      some = [mini_language.to_python(program) for program in some]
    tries = [f'<tool>{program}</tool>' for program in some]
    return (*tries, '<answer></answer>')

  def privileged(self, state: State) -> str:
    """A program that is right."""
    return state.answer

  def oracle(self, state: State) -> str:
    """Tries a program that is right, then submits it."""
    program = state.answer
    if self._language == 'python':
      program = mini_language.to_python(program)
    kind = 'answer' if state.tried == program else 'tool'
    return f'<{kind}>{program}</{kind}>'


def tinker(
  environment: MiniCode,
  task: types.Task,
  seed: int,
  *,
  skill: float = 0.4,
  heart: float = 0.6,
  patience: float = 0.5,
) -> list[str]:
  """A demonstration in the right form, of mixed craft.

  It tries programs that are right or differ from such in one word, and submits
  the last one when it passes, or when patience is lost. Some know the visible
  tests by heart instead.

  Args:
    environment: steps the actions; its language is 'mini'.
    task: of `tasks.mini_code`.
    seed: with the task's text it decides everything.
    skill: the probability that a program is right, from 0 to 1.
    heart: the share of demonstrations that know the tests by heart.
    patience: the probability of another program after one that fails.

  Returns:
    The actions; the last one answers, unless the world ended before.

  Raises:
    ValueError: if one of these is no probability.
  """
  if not all(0 <= share <= 1 for share in (skill, heart, patience)):
    raise ValueError(
      'skill, heart and patience are probabilities, got '
      f'{skill}, {heart}, {patience}.'
    )
  rng = random.Random(f'tinker/{seed}/{task.prompt}')
  right = task.answer.replace(' ', '')
  transition, actions = environment.reset(task, seed), list[str]()
  wanted = len(transition.state.visible.inputs)
  knows = rng.random() < heart
  while not (transition.terminated or transition.truncated):
    state = transition.state
    fails = state.most_passed < wanted
    if fails and (not state.turn or rng.random() < patience):
      program = right if rng.random() < skill else _changed(right, rng)
      if knows:
        program = mini_code.by_heart(state.visible)
      actions.append(f'<tool>{program}</tool>')
    else:
      actions.append('<answer></answer>')
    transition = environment.step(state, actions[-1], seed)
  return actions


def _changed(program: str, rng: random.Random) -> str:
  """Another program: a word is another one of its kind."""
  kinds = ('123456789', '+-*mM/%', '<=>')
  places = [
    (i, kind)
    for i, word in enumerate(program)
    for kind in kinds
    if word in kind
  ]
  place, kind = rng.choice(places)
  word = rng.choice(kind.replace(program[place], ''))
  return program[:place] + word + program[place + 1 :]


def _run_python(
  program: str, inputs: tuple[int, ...], box: sandbox.Sandbox
) -> list[int | str]:
  """As `MiniCode._run`, in a sandbox."""
  code = program + '\n' + _HARNESS.format(inputs=inputs)
  try:
    result = box.run(code)
  except ValueError as refused:
    raise _NotCompiled(str(refused)) from None
  lines = result.text.strip().splitlines() or ['']
  if result.status != 'done':
    raise _NotCompiled(result.detail or lines[-1][:200])
  try:
    found = json.loads(lines[-1])
  except (ValueError, RecursionError):
    found = None
  if not isinstance(found, list) or len(found) != len(inputs):
    raise _NotCompiled('it ended before f was called')
  # True is no 1 here, and 2.0 no 2.
  return [x if type(x) is int else str(x)[:20] for x in found]


def _key(state: State) -> str:
  return f'{state.visible} | {state.tried} | {state.most_passed}'
