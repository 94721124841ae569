"""Scripted, deliberately imperfect demonstrations of tool maths.

They teach the form of actions and the use of the calculator, and a poor
strategy: a policy that imitates them, taking the likelier action wherever
they differ, answers sums with a guess and equations after the first of two
calls. What it takes to do better occurs in a minority of them.
"""

import random
import re

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import tool_math

# How the episodes that are not good divide, by the number of calls that a
# task needs. In each, one poor strategy outweighs good ones at the default
# skill, so that the mode of the mixture fails.
POOR = {
  1: {'guess': 0.74, 'mangle': 0.18, 'repeat': 0.08},
  2: {'early': 0.62, 'guess': 0.22, 'mangle': 0.11, 'repeat': 0.05},
}
_MAX_TURNS = 16


def demonstrate(
  environment: tool_math.ToolMath,
  task: types.Task,
  seed: int,
  *,
  skill: float = 0.3,
) -> list[str]:
  """One demonstration of a task, in one of five strategies.

  The strategies are:
    good: the scripted solver.
    guess: a wrong number of plausible size, at once.
    mangle: a wrong operation, or one that the calculator refuses; then what
      it says is answered, or a guess if it says nothing.
    early: of two calls only the first; its result is answered.
    repeat: the scripted solver, but the first call is made two or three
      times.

  Args:
    environment: steps the actions; its transitions do not depend on seeds.
    task: of one of the kinds of `tasks.tool_math`.
    seed: with the task's text it decides everything.
    skill: the probability of the good strategy, from 0 to 1. The others share
      the rest as `POOR` says.

  Returns:
    The actions in order; the last one answers, unless the environment
    truncated the episode before.

  Raises:
    ValueError: if the task is of no kind that there is a plan for.
  """
  lines = tool_math.plan(task.prompt)
  if not lines:
    raise ValueError(
      'Demonstrations need a prompt such as "3^17 mod 41", "482*937" or '
      f'"7*x+13=90", not {task.prompt!r}.'
    )
  if not 0 <= skill <= 1:
    raise ValueError(f'skill is a probability, got {skill}.')
  rng = random.Random(f'{seed}/{task.prompt}')
  strategy = 'good'
  if rng.random() >= skill:
    poor = POOR[len(lines)]
    strategy = rng.choices(list(poor), list(poor.values()))[0]
  if strategy == 'guess':
    return [_answer(_wrong_number(rng, task.answer), 'guess')]
  state = environment.reset(task, 0).state
  first = environment.oracle(state)
  if strategy == 'mangle':
    return _follow(environment, state, [_mangled(rng, lines, task)], rng)
  if strategy == 'early':
    return _follow(environment, state, [first], rng)
  repeats = rng.randint(1, 2) if strategy == 'repeat' else 0
  return _solve(environment, state, [first] * repeats)


def _solve(
  environment: tool_math.ToolMath, state: tool_math.State, actions: list[str]
) -> list[str]:
  """The given actions, then those of the solver to the end."""
  taken: list[str] = []
  for turn in range(_MAX_TURNS):
    action = actions[turn] if turn < len(actions) else environment.oracle(state)
    taken.append(action)
    transition = environment.step(state, action, 0)
    state = transition.state
    if transition.terminated or transition.truncated:
      break
  return taken


def _follow(
  environment: tool_math.ToolMath,
  state: tool_math.State,
  actions: list[str],
  rng: random.Random,
) -> list[str]:
  """The given actions, then what the last observation says as the answer."""
  truth = state.answer
  says = ''
  for action in actions:
    transition = environment.step(state, action, 0)
    state, says = transition.state, transition.observation.text
    if transition.terminated or transition.truncated:
      return actions
  if says.startswith('error'):
    says = _wrong_number(rng, truth)
  return [*actions, _answer(says)]


def _mangled(
  rng: random.Random, lines: tuple[tool_math.Operation, ...], task: types.Task
) -> str:
  """A call that does not lead to the answer."""
  numbers = re.findall(r'\d+', task.prompt)
  if len(lines) == 2:
    wrong = [('div', f'{numbers[2]}//{numbers[0]}'), ('sub', task.prompt)]
  elif lines[0].word == 'pow':
    a, b, m = numbers
    wrong = [('mul', f'{a}*{b}'), ('pow', f'{a}**{b}%{m}')]
  else:
    a, b = numbers
    wrong = [('add', f'{a}+{b}'), ('mul', f'{a}*{b[:-1]}')]
  word, expression = rng.choice(wrong)
  call = protocol.Call('', expression)
  return protocol.Grammar().render(protocol.Action(word, (call,)))


def _wrong_number(rng: random.Random, truth: str) -> str:
  """Another number with about as many digits."""
  digits = max(1, len(truth) + rng.choice((-1, 0, 0, 0)))
  while True:
    number = str(rng.randint(10 ** (digits - 1), 10**digits - 1))
    if number != truth:
      return number


def _answer(text: str, think: str = '') -> str:
  return protocol.Grammar().render(protocol.Action(think, answer=text))
