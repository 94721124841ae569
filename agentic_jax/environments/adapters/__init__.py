"""Worlds of other packages, each an optional extra.

Their tasks are seeds but where `TASKS` names others.
"""

from collections.abc import Callable

from agentic_jax.environments import base
from agentic_jax.environments.adapters import browser_forms
from agentic_jax.environments.adapters import gymnasium
from agentic_jax.environments.adapters import minigrid
from agentic_jax.environments.adapters import miniwob
from agentic_jax.environments.adapters import openenv
from agentic_jax.environments.adapters import puzzles
from agentic_jax.environments.adapters import scienceworld
from agentic_jax.environments.adapters import textarena
from agentic_jax.environments.adapters import textworld

# What makes each by its settings; its package is imported no earlier.
ADAPTERS: dict[str, Callable[..., base.Environment]] = {
  'babyai': minigrid.babyai,
  'browser_forms': browser_forms.BrowserForms,
  'gymnasium': gymnasium.by_id,
  'minigrid': minigrid.minigrid,
  'miniwob': miniwob.MiniWoB,
  'openenv': openenv.OpenEnv,
  'reasoning_gym': puzzles.by_name,
  'scienceworld': scienceworld.ScienceWorld,
  'textarena': textarena.TextArena,
  'textworld': textworld.TextWorld,
}
# What the tasks of an adapter are named, where they are no seeds.
TASKS = {'browser_forms': 'forms'}
