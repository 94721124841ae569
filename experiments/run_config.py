"""The config.json of a run: what it was started with, written and read back."""

import dataclasses
import json
import pathlib
import sys
from typing import Any

from absl import flags
import jax

from agentic_jax import __version__
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax.models import causal
from experiments import drafts
from experiments import pages
from experiments import policies

FLAGS = flags.FLAGS

# Whose flags belong to a run, besides those of the script.
_FLAGGED = ('experiments.run_flags', 'experiments.imitation')


def settings_of(run: Any) -> dict[str, Any]:
  """Everything that a run of `common` is started with, as JSON."""
  chosen = {
    k: v.default for k, v in recipe_lib.settings_of(run.make_recipe).items()
  }
  # None of these changes what the steps so far computed.
  free = (
    'workdir',
    'resume',
    'inspect',
    'workers',
    'steps',
    'mesh',
    'checkpoint_every',
  )
  own = {
    f.name: f.value
    for module, found in FLAGS.flags_by_module_dict().items()
    if module in (*_FLAGGED, sys.argv[0])
    for f in found
    if f.name not in free
  }
  environment, grammar = run.world.environment, run.world.grammar
  isolation = getattr(environment, 'isolation', '')
  planning = [x for x in ('plan', 'switch') if getattr(grammar, x)]
  return {
    'version': __version__,
    'versions': {'jax': jax.__version__, 'python': sys.version.split()[0]},
    'command': ' '.join(sys.argv),
    'commit': train.git_commit(),
    'attention': attention_of(run),
    'seed': FLAGS.seed,
    'recipe': {
      'name': pages.name_of(run.make_recipe, FLAGS.recipe),
      'settings': chosen | run.settings,
    },
    'model': dataclasses.asdict(run.config)
    | {'name': FLAGS.model}
    | policies.origin(run.published),
    'flags': own,
    'files': train.digests(_files()) | drafts.origin(FLAGS.speculate),
    'limits': run.world.limits._asdict(),
    'describe': {
      'horizon': run.world.limits.turns,
      'observability': getattr(environment, 'observability', 'unknown'),
      'actions': ['text', 'tool', *planning],
      'credit': run.recipe.granularity,
    }
    | ({'isolation': isolation} if isolation else {}),
  }


def attention_of(run: Any) -> str:
  """What computes attention in training, and why."""
  said = str(causal.chosen(run.config))
  return f'{said}; prefix trees by pieces' if FLAGS.prefix_tree else said


def _files() -> dict[str, str]:
  """The files of the user that a run is made of, by their flags."""
  return {
    'recipe': str(pages.names().get(FLAGS.recipe, FLAGS.recipe)),
    'environment': FLAGS.environment.partition('?')[0].rpartition(':')[0],
    'tasks': FLAGS.tasks,
    'tokenizer': FLAGS.tokenizer,
    'swap': str(train.schedule_of(FLAGS.swap)),
  }


def restore_flags(workdir: pathlib.Path) -> rollout.Limits:
  """Takes the flags of a run, but for those given on the command line.

  How its tasks came is left out: it binds nobody who only plays its policy, and
  may not be possible with other tasks or another context.

  Returns:
    The run's limits; --limit goes before them still.

  Raises:
    ValueError: the directory holds no run.
  """
  path = workdir / 'config.json'
  config = json.loads(path.read_text()) if path.exists() else {}
  if not {'flags', 'limits'} <= config.keys():
    raise ValueError(
      f'--init_from={str(workdir)!r} is no run directory: it has no '
      'config.json of a run. Name one, such as runs/quickstart.'
    )
  asked = FLAGS.limit
  for name, value in config['flags'].items():
    if name in ('init_from', 'sampler') or name not in FLAGS:
      continue
    if not FLAGS[name].present:
      setattr(FLAGS, name, value)
  if FLAGS.memory and not FLAGS['memory'].present:
    FLAGS['slots'].present = 1  # What the memory held for the run.
  FLAGS['workdir'].value = str(workdir)
  FLAGS['limit'].value = asked
  return rollout.Limits(**config['limits'])
