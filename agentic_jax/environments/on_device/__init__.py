"""Toy worlds as functions of arrays: thousands of episodes step at once.

`corridor_step` and `maze_step` take and return arrays, for studies and kernels.
`Corridor` and `Mazes` are the same functions as environments, which answer just
what their twins in `toy` and `mazes` answer.

This folder imports jax, so nothing imports it before one of its worlds is asked
for by name.
"""

from agentic_jax.environments.on_device.arrays import CELLS
from agentic_jax.environments.on_device.arrays import Grids
from agentic_jax.environments.on_device.arrays import Moved
from agentic_jax.environments.on_device.arrays import Walks
from agentic_jax.environments.on_device.arrays import corridor_step
from agentic_jax.environments.on_device.arrays import grids
from agentic_jax.environments.on_device.arrays import maze_step
from agentic_jax.environments.on_device.arrays import restart
from agentic_jax.environments.on_device.arrays import walks
from agentic_jax.environments.on_device.worlds import WORLDS
from agentic_jax.environments.on_device.worlds import Corridor
from agentic_jax.environments.on_device.worlds import Mazes
from agentic_jax.environments.on_device.worlds import MazeState

__all__ = [
  'CELLS',
  'WORLDS',
  'Corridor',
  'Grids',
  'MazeState',
  'Mazes',
  'Moved',
  'Walks',
  'corridor_step',
  'grids',
  'maze_step',
  'restart',
  'walks',
]
