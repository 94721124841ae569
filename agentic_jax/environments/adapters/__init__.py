"""Worlds of other packages, each an optional extra; their tasks are seeds."""

from collections.abc import Callable

from agentic_jax.environments import base
from agentic_jax.environments.adapters import gymnasium
from agentic_jax.environments.adapters import minigrid
from agentic_jax.environments.adapters import openenv
from agentic_jax.environments.adapters import puzzles
from agentic_jax.environments.adapters import textarena
from agentic_jax.environments.adapters import textworld

# What makes each by its settings; its package is imported no earlier.
ADAPTERS: dict[str, Callable[..., base.Environment]] = {
  'babyai': minigrid.babyai,
  'gymnasium': gymnasium.by_id,
  'minigrid': minigrid.minigrid,
  'openenv': openenv.OpenEnv,
  'reasoning_gym': puzzles.by_name,
  'textarena': textarena.TextArena,
  'textworld': textworld.TextWorld,
}
