"""A small stack language of whole numbers, read and run without danger.

A program is a row of words, each one character, of a number x. A word takes
what it wants from a stack and leaves what it makes there:

  x 0 1 ... 9   the input; a digit
  + - * / %     of two numbers; / and % round down, as Python's
  m M           the smaller and the larger of two numbers
  < = >         a truth of two numbers
  ?             of a truth and two numbers, the first number if it is true
  d s           the last value twice; the last two values in the other order
  [ ]           what is between them as often as a number says; it leaves as
                many values, of the same kinds, as it finds

At the end there is one number. `x 3 * 1 +` is 3x + 1, `1 x [ 2 * ]` is 2ˣ. How
many values there are at each word, and of which kinds, is known before a
program runs, so most mistakes are errors of the compiler.
"""

from collections.abc import Callable
import operator

_TWO: dict[str, Callable[[int, int], int]] = {
  '+': operator.add,
  '-': operator.sub,
  '*': operator.mul,
  '/': operator.floordiv,
  '%': operator.mod,
  'm': min,
  'M': max,
}
_TRUTHS: dict[str, Callable[[int, int], bool]] = {
  '<': operator.lt,
  '=': operator.eq,
  '>': operator.gt,
}
WORDS = 'x0123456789' + ''.join(_TWO) + ''.join(_TRUTHS) + '?ds[]'
MOST_WORDS = 60
MOST_DEPTH = 4  # Of loops in loops.
_MOST_STEPS = 1000
_MOST_VALUE = 10**6

# Words, and programs between brackets.
Program = tuple['str | Program', ...]


class WrongProgram(ValueError):
  """A text is no program; the message is short."""


class WrongRun(ValueError):
  """A program has no value for an input; the message is short."""


def read(text: str) -> Program:
  """The program of a text.

  Raises:
    WrongProgram: it is none.
  """
  words = [word for word in text if not word.isspace()]
  if not words:
    raise WrongProgram('no program')
  if len(words) > MOST_WORDS:
    raise WrongProgram(f'more than {MOST_WORDS} words')
  stack: list[str] = []
  program, place = _read(words, 0, stack, 0)
  if len(stack) != 1:
    raise WrongProgram(f'ends with {len(stack)} values')
  if stack != ['number']:
    raise WrongProgram(f'ends with a {stack[0]}')
  return program


def _read(
  words: list[str], place: int, stack: list[str], depth: int
) -> tuple[Program, int]:
  """What is up to a closing bracket; `stack` has the kinds of values."""
  program: list[str | Program] = []
  while place < len(words):
    word = words[place]
    place += 1
    if word == ']':
      if depth == 0:
        raise WrongProgram(f'word {place} ] closes nothing')
      return tuple(program), place
    _check(word, place, stack)
    if word == '[':
      if depth == MOST_DEPTH:
        raise WrongProgram(f'word {place} [ is too deep')
      before, opened = list(stack), place
      inner, place = _read(words, place, stack, depth + 1)
      if stack != before:
        raise WrongProgram(f'the loop of word {opened} changes the stack')
      program.append(inner)
    else:
      program.append(word)
  if depth:
    raise WrongProgram('a [ is not closed')
  return tuple(program), place


def _check(word: str, place: int, stack: list[str]) -> None:
  """Takes from the stack of kinds what a word takes, and gives what it does."""
  wants: list[str] = []
  if word == '[':
    wants, gives = ['number'], []
  elif word in 'x0123456789':
    gives = ['number']
  elif word in _TWO:
    wants, gives = ['number'] * 2, ['number']
  elif word in _TRUTHS:
    wants, gives = ['number'] * 2, ['truth']
  elif word == '?':
    wants, gives = ['truth', 'number', 'number'], ['number']
  elif word in 'ds':
    wants = stack[-1:] if word == 'd' else stack[-2:]
    gives = wants[::-1] if word == 's' else wants * 2
    if len(wants) < (2 if word == 's' else 1):
      raise WrongProgram(f'word {place} {word} wants more values')
  else:
    raise WrongProgram(f'word {place} {ascii(word)[1:-1]} is unknown')
  if wants and stack[-len(wants) :] != wants:
    found = ' '.join(stack[-len(wants) :]) or 'nothing'
    raise WrongProgram(
      f'word {place} {word} wants {" ".join(wants)}, finds {found}'
    )
  del stack[len(stack) - len(wants) :]
  stack += gives


def run(program: Program, x: int) -> int:
  """The value of a program.

  Raises:
    WrongRun: it divides by zero, takes too long, or a value is too large.
  """
  stack: list[int] = []
  _run(program, x, stack, _MOST_STEPS)
  return stack[0]


def _run(program: Program, x: int, stack: list[int], steps: int) -> int:
  """Works on the stack; the steps that are left."""
  pop = stack.pop
  for word in program:
    steps -= 1
    if steps < 0:
      raise WrongRun('too many steps')
    if isinstance(word, tuple):
      for _ in range(pop()):
        # A step of its own, so that an empty loop ends.
        steps = _run(word, x, stack, steps - 1)
    elif word == 'x':
      stack.append(x)
    elif word in _TWO:
      right = pop()
      if right == 0 and word in '/%':
        raise WrongRun('division by zero')
      value = _TWO[word](pop(), right)
      if not -_MOST_VALUE <= value <= _MOST_VALUE:
        raise WrongRun('too large')
      stack.append(value)
    elif word in _TRUTHS:
      right = pop()
      stack.append(_TRUTHS[word](pop(), right))
    elif word == '?':
      no, yes = pop(), pop()
      stack.append(yes if pop() else no)
    elif word == 'd':
      stack.append(stack[-1])
    elif word == 's':
      stack[-2:] = stack[:-3:-1]
    else:
      stack.append(int(word))
  if steps < 0:
    raise WrongRun('too many steps')
  return steps


def to_python(text: str) -> str:
  """The same program as a function f of Python.

  Raises:
    WrongProgram: the text is no program.
  """
  lines: list[str] = []
  stack = _translate(read(text), [], lines, '  ')
  return '\n'.join(['def f(x):', *lines, f'  return {stack[0]}'])


def _translate(
  program: Program, stack: list[str], lines: list[str], indent: str
) -> list[str]:
  """The stack of expressions after a program; adds the lines on the way."""
  for word in program:
    if isinstance(word, tuple):
      times = stack.pop()
      names = [f'v{i}' for i in range(len(stack))]
      left = ', '.join(names)
      if names:
        lines.append(f'{indent}{left} = {", ".join(stack)}')
      lines.append(f'{indent}for _ in range({times}):')
      inner = _translate(word, list(names), lines, indent + '  ')
      right = ', '.join(inner)
      lines.append(f'{indent}  {f"{left} = {right}" if names else "pass"}')
      stack = names
    elif word in 'mM':
      right, left = stack.pop(), stack.pop()
      name = 'min' if word == 'm' else 'max'
      stack.append(f'{name}({left}, {right})')
    elif word in _TWO or word in _TRUTHS:
      right, left = stack.pop(), stack.pop()
      sign = {'/': '//', '=': '=='}.get(word, word)
      stack.append(f'({left} {sign} {right})')
    elif word == '?':
      no, yes, truth = stack.pop(), stack.pop(), stack.pop()
      stack.append(f'({yes} if {truth} else {no})')
    elif word == 'd':
      stack.append(stack[-1])
    elif word == 's':
      stack[-2:] = stack[:-3:-1]
    else:
      stack.append(word)
  return stack
