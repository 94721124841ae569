"""Recipes by name: the pages beside this file.

A page is a file of experiments/ with a function `recipe(*, ...) -> Recipe`,
whose keyword defaults are the paper's settings.
"""

from collections.abc import Callable
import functools
import pathlib
import re

from agentic_jax import recipe as recipe_lib

_FOLDER = pathlib.Path(__file__).parent


@functools.cache
def names() -> dict[str, pathlib.Path]:
  """The pages that hold a recipe, by their names; none is imported."""
  return {
    path.stem: path
    for path in sorted(_FOLDER.glob('*.py'))
    if re.search(r'^def recipe\(', path.read_text(), re.MULTILINE)
  }


def load(name: str) -> Callable[..., recipe_lib.Recipe]:
  """The maker of a page by its name, or that of a path.py.

  Raises:
    ValueError: there is no such name or file, or the file has no `recipe`.
  """
  return recipe_lib.load(name, names())


def name_of(maker: Callable[..., recipe_lib.Recipe], asked: str) -> str:
  """What to call a maker: that of a page is called `recipe`, like all."""
  name = getattr(maker, '__name__', asked)
  return asked if name == 'recipe' else name
