"""Episodes -> Trajectory and Turns: the one host-to-device crossing."""

from agentic_jax.batching.packing import Images
from agentic_jax.batching.packing import Shape
from agentic_jax.batching.packing import Stacked
from agentic_jax.batching.packing import shape_for
from agentic_jax.batching.packing import stack
from agentic_jax.batching.packing import turns_of

__all__ = [
  'Images',
  'Shape',
  'Stacked',
  'shape_for',
  'stack',
  'turns_of',
]
