"""Calls of typed Python functions: validation, results and errors as text.

The library pydantic, an optional extra, validates; it is imported at the first
call.
"""

from collections.abc import Callable, Sequence
import functools
import inspect
import json
import typing
from typing import Any

from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import schema

# The keyword-only argument by which a function asks for the state of its kit.
STATE = 'state'
_MOST_FAULTS = 2
_MOST_CHARACTERS = 160


class Functions:
  """A kit of typed Python functions with docstrings.

  A function is described by `schema.describe` and told what the policy gave,
  validated. What it returns is the answer: a text as it is, None as 'done',
  anything else as JSON. What it raises is an error that the policy reads, but
  for `base.Broken`.

  A function with a keyword-only argument `state` is given the state of the
  kit, and returns the state after the call and the answer. The state is a
  value: hashable, and never changed.
  """

  live = False

  def __init__(
    self,
    functions: Sequence[Callable[..., Any]],
    begin: Callable[[types.Task], Any] | None = None,
    isolation: str = '',
  ):
    """Describes the functions.

    Args:
      functions: each with a name of its own.
      begin: from a task to the state in which it begins; None: it is None.
      isolation: of programs that the functions run, see `base.Kit`.

    Raises:
      ValueError: a function is not described well enough, or pydantic is not
        installed.
    """
    library()
    self._functions = {function.__name__: function for function in functions}
    self._stateful = {
      name
      for name, function in self._functions.items()
      if STATE in inspect.signature(function).parameters
    }
    self._begin = begin
    self.isolation = isolation
    self.schemas = tuple(map(schema.describe, self._functions.values()))

  def begin(self, task: types.Task) -> Any:
    """See `base.Kit`."""
    return self._begin(task) if self._begin else None

  def call(self, state: Any, name: str, arguments: str) -> tuple[Any, str]:
    """See `base.Kit`."""
    function = self._functions[name]
    given = validated(function, arguments)
    try:
      if name in self._stateful:
        state, found = function(**given, state=state)
      else:
        found = function(**given)
    except (base.ToolError, base.Broken):
      raise
    except Exception as error:
      raise base.ToolError(_told(error)) from error
    return state, text_of(found)


def validated(function: Callable[..., Any], arguments: str) -> dict[str, Any]:
  """The arguments of a call, of the types that the function wants.

  Args:
    function: with type hints.
    arguments: an object, as JSON.

  Returns:
    What was given, by name; defaults are left to the function.

  Raises:
    base.ToolError: an argument is missing, unknown or of another type.
  """
  try:
    return _adapter(function).validate_json(arguments)
  except library().ValidationError as error:
    raise base.ToolError(_faults(error)) from None


def text_of(found: Any) -> str:
  """What a tool returned, as the policy reads it."""
  if found is None:
    return 'done'
  if isinstance(found, str):
    return found
  return json.dumps(found, ensure_ascii=False, default=str)


@functools.lru_cache(maxsize=256)
def _adapter(function: Callable[..., Any]) -> Any:
  """What validates the arguments of a function that the policy gives."""
  pydantic = library()
  import typing_extensions

  hints = typing.get_type_hints(function)
  fields = {}
  for argument in inspect.signature(function).parameters.values():
    if argument.kind is inspect.Parameter.KEYWORD_ONLY:
      continue
    hint = hints[argument.name]
    if argument.default is not inspect.Parameter.empty:
      hint = typing_extensions.NotRequired[hint]
    fields[argument.name] = hint
  form = typing_extensions.TypedDict('Arguments', fields)  # type: ignore
  strict = pydantic.with_config(pydantic.ConfigDict(extra='forbid'))
  return pydantic.TypeAdapter(strict(form))


def _faults(error: Any) -> str:
  """What is wrong with arguments, in a few words."""
  faults = []
  for fault in error.errors(include_url=False, include_input=False):
    where = '.'.join(map(str, fault['loc'])) or 'arguments'
    says = fault['msg'].partition(',')[0]
    faults.append(f'{where}: {says[:1].lower()}{says[1:]}')
  more = len(faults) - _MOST_FAULTS
  end = f'; {more} more' if more > 0 else ''
  return ('; '.join(faults[:_MOST_FAULTS]))[:_MOST_CHARACTERS] + end


def _told(error: Exception) -> str:
  """An error of somebody's function, in one line."""
  said = (str(error).strip().splitlines() or [''])[0]
  told = f'{type(error).__name__}: {said}' if said else type(error).__name__
  return told[:_MOST_CHARACTERS]


def library() -> Any:
  """The library that validates.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import pydantic
  except ImportError as error:
    raise ValueError(
      'Tools need the library pydantic, which validates their arguments and is '
      "not installed; run pip install 'agentic_jax[tools]'."
    ) from error
  return pydantic
