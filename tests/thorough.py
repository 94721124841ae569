"""Which cases of long tests always run, and which only in `make thorough`."""

from collections.abc import Iterable
import os
from typing import Any

import pytest

ASKED = bool(os.environ.get('THOROUGH'))


def some(cases: Iterable[Any], every: int, first: int = 0) -> list[Any]:
  """All cases for `parametrize`; but every n-th is marked `thorough`.

  Args:
    cases: to run.
    every: of how many one always runs.
    first: which of them.
  """
  return [
    case
    if i % every == first
    else pytest.param(case, marks=pytest.mark.thorough)
    for i, case in enumerate(cases)
  ]
