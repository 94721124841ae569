"""The samplers by name."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from agentic_jax import signatures
from agentic_jax import types
from agentic_jax.tasks import curriculum
from agentic_jax.tasks import drawing
from agentic_jax.tasks import restarts

# (tasks, seed) -> a sampler of these tasks.
Make = Callable[[Sequence[types.Task], int], drawing.Sampler]

SAMPLERS: dict[str, Callable[..., drawing.Sampler]] = {
  'curriculum': curriculum.Curriculum,
  'restart': restarts.Restarting,
  'uniform': drawing.Uniform,
  'window': drawing.Window,
}


def load(name: str, **settings: Any) -> Make:
  """What makes a sampler, once the tasks are there.

  Args:
    name: a key of `SAMPLERS`.
    **settings: of its constructor, such as `threshold`.

  Raises:
    ValueError: if there is no such sampler, or it has no such setting.
  """
  if name not in SAMPLERS:
    raise ValueError(
      f'There is no sampler {name!r}.'
      f'{signatures.did_you_mean(name, SAMPLERS)} Choose one of '
      f'{", ".join(sorted(SAMPLERS))}.'
    )
  signatures.check(name, SAMPLERS[name], settings)
  return functools.partial(SAMPLERS[name], **settings)
