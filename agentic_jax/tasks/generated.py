"""The tasks that our worlds generate."""

from collections.abc import Callable, Iterable

from agentic_jax import types
from agentic_jax.tasks import blocks
from agentic_jax.tasks import coop_search
from agentic_jax.tasks import dialog_mem
from agentic_jax.tasks import forms
from agentic_jax.tasks import house
from agentic_jax.tasks import kb_search
from agentic_jax.tasks import long_doc
from agentic_jax.tasks import mazes
from agentic_jax.tasks import mini_code
from agentic_jax.tasks import multi_obj
from agentic_jax.tasks import negotiate
from agentic_jax.tasks import pixel_grid
from agentic_jax.tasks import proofs
from agentic_jax.tasks import seeds
from agentic_jax.tasks import tables
from agentic_jax.tasks import terminal
from agentic_jax.tasks import tool_math
from agentic_jax.tasks import toolbox
from agentic_jax.tasks import toy
from agentic_jax.tasks import workbench

# From a split to its tasks. What is in `Task.data` is JSON.
TASKS: dict[str, Callable[[str], Iterable[types.Task]]] = {
  'blocks': blocks.tasks,
  'coop_search': coop_search.tasks,
  'corridor': toy.corridor,
  'dialog_mem': dialog_mem.tasks,
  'echo': toy.echo,
  'errands': toy.errands,
  'forms': forms.tasks,
  'house': house.tasks,
  'kb_search': kb_search.tasks,
  'kb_search_long': kb_search.long_tasks,
  'kb_search_short': kb_search.short_tasks,
  'long_doc': long_doc.tasks,
  'long_doc_letters': long_doc.letters_tasks,
  'mazes': mazes.tasks,
  'mazes_small': mazes.small_tasks,
  'mini_code': mini_code.tasks,
  'mini_code_short': mini_code.short_tasks,
  'multi_obj': multi_obj.tasks,
  'multi_obj_letters': multi_obj.letters_tasks,
  'negotiate': negotiate.tasks,
  'pixel_grid': pixel_grid.tasks,
  'proofs': proofs.tasks,
  'seeds': seeds.tasks,
  'tables': tables.tasks,
  'terminal': terminal.tasks,
  'tool_math': tool_math.tasks,
  'toolbox': toolbox.tasks,
  'workbench': workbench.tasks,
  'workbench_long': workbench.long_tasks,
}
