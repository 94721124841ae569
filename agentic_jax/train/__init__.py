"""The one loop, and the pure step that it compiles."""

from agentic_jax.train.compiled import compile_programs
from agentic_jax.train.compiled import init_state
from agentic_jax.train.loop import Plan
from agentic_jax.train.loop import run
from agentic_jax.train.loop import Source
from agentic_jax.train.step import TrainState

__all__ = [
  'Plan',
  'Source',
  'TrainState',
  'compile_programs',
  'init_state',
  'run',
]
