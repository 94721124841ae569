"""What a policy is told of a tool, against schemas written by hand."""

from typing import Literal

import pytest

from agentic_jax import tools
from agentic_jax.environments import tool_math
from experiments import worlds


def weather(
  city: str,
  days: int = 1,
  unit: Literal['celsius', 'kelvin'] = 'celsius',
  hours: list[float] | None = None,
  *,
  cache: object = None,
) -> str:
  """The weather
  of a city.

  Of any city. Even small ones.

  Args:
    city: its name, such
      as Ulm.
    days: how many: 1 or more.
    unit: of temperature.
    hours: of the day.
    cache: of answers.

  Returns:
    city: no argument.
  """
  del city, days, unit, hours, cache
  return ''


def test_a_schema_by_hand():
  # Of the same function without `cache`, `transformers` 5.23 makes the same,
  # but for the line breaks of descriptions and what is returned.
  assert tools.describe(weather) == {
    'type': 'function',
    'function': {
      'name': 'weather',
      'description': 'The weather of a city. Of any city. Even small ones.',
      'parameters': {
        'type': 'object',
        'properties': {
          'city': {
            'type': 'string',
            'description': 'its name, such as Ulm.',
          },
          'days': {'type': 'integer', 'description': 'how many: 1 or more.'},
          'unit': {
            'type': 'string',
            'enum': ['celsius', 'kelvin'],
            'description': 'of temperature.',
          },
          'hours': {
            'type': 'array',
            'items': {'type': 'number'},
            'nullable': True,
            'description': 'of the day.',
          },
        },
        'required': ['city'],
      },
    },
  }


def test_a_function_that_does_not_say_enough_is_refused():
  def untyped(x):
    """Does.

    Args:
      x: of it.
    """

  def untold(x: int):
    """Does."""

  def odd(x: complex):
    """Does.

    Args:
      x: of it.
    """

  for function in untyped, untold, odd:
    with pytest.raises(ValueError, match="a type hint.* its argument 'x'"):
      tools.describe(function)


def test_a_docstring_may_be_indented_and_typed_otherwise():
  def wide(city: str, days: int, style: Literal[1, 2] = 1):
    """Does.

    Args:
        city (str): its name,
            such: as Ulm.
        days (list[int], optional):
          how many.
        style: one.

    Note:
        other: no argument.
    """

  parameters = tools.describe(wide)['function']['parameters']
  assert parameters == {
    'type': 'object',
    'properties': {
      'city': {'type': 'string', 'description': 'its name, such: as Ulm.'},
      'days': {'type': 'integer', 'description': 'how many.'},
      'style': {'type': 'integer', 'enum': [1, 2], 'description': 'one.'},
    },
    'required': ['city', 'days'],
  }


def test_what_a_schema_cannot_say_is_refused():
  def many(x: int, *rest: int):
    """Does.

    Args:
      x: of it.
      rest: of it.
    """

  def named(x: int, **more: int):
    """Does.

    Args:
      x: of it.
      more: of it.
    """

  def mixed(x: Literal[1, 'a']):
    """Does.

    Args:
      x: of it.
    """

  def empty(x: int):
    """Does.

    Args:
      x:
    """

  for function, text in (
    (many, r"'many' wants arguments with names; got \*rest"),
    (named, r"'named' wants arguments with names; got \*\*more"),
    (mixed, "a type hint.* its argument 'x'"),
    (empty, "a line in .* its argument 'x'"),
  ):
    with pytest.raises(ValueError, match=text):
      tools.describe(function)


def test_the_calculator_describes_itself():
  (tool,) = tool_math.ToolMath(max_operations=2).tools
  inner = tool['function']
  assert inner['name'] == 'calculator'
  assert list(inner['parameters']['properties']) == ['expression']
  says = 'at most 2 operations. It is written as <tool>EXPRESSION</tool>, and'
  assert says in inner['description']
  # What it says of a call and an answer is what the environment reads.
  assert '<answer>NUMBER</answer>.' in inner['description']
  assert tool_math.ToolMath(tool=False).tools == ()
  assert tools.fault(tool_math.ToolMath().tools) == ''


@pytest.mark.parametrize(
  'given, message',
  [
    ("'calculator'", "tools wanted a sequence of schemas, got 'calculator'"),
    ('(len,)', 'as tools.describe.function. makes it, got <built-in'),
    ("({'type': 'function'},)", "wanted {'type': 'function', 'function': "),
  ],
)
def test_an_environment_with_other_tools_is_refused(tmp_path, given, message):
  path = tmp_path / 'mine.py'
  path.write_text(
    'class World:\n'
    f'  tools = {given}\n'
    '  def reset(self, task, seed): ...\n'
    '  def step(self, state, action, seed): ...\n'
  )
  with pytest.raises(ValueError, match=message):
    worlds.make(
      environment=f'{path}:World',
      contexts='append_all',
      words=lambda actions: None,
      limit=[],
      base_limits=None,
      seed=0,
    )
