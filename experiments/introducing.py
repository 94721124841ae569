"""What is said before a run begins, and shown in its place by --inspect."""

import dataclasses
import sys

from absl import flags

from agentic_jax import train
from experiments import common
from experiments import inspecting
from experiments import run_config
from experiments import worlds

FLAGS = flags.FLAGS


def introduce(run: common.Run) -> None:
  """Says what is about to happen; with --inspect, shows episodes and exits."""
  counts = ', '.join(f'{len(v)} {k}' for k, v in run.splits.items())
  shown = run.recipe.demonstrations
  which = f', {shown} of each group demonstrated' if shown else ''
  print(
    f'{FLAGS.recipe} on {FLAGS.environment}: {counts} tasks, model '
    f'{FLAGS.model}, {FLAGS.steps} steps of {FLAGS.tasks_per_step} x '
    f'{run.recipe.group_size} episodes{which}, in {run.workdir}; '
    f'{run_config.attention_of(run)}',
    flush=True,
  )
  if told := worlds.telling(run.world):
    print(told, flush=True)
  if FLAGS.inspect:
    inspect_episodes(run)
    sys.exit()


def inspect_episodes(run: common.Run) -> None:
  """Prints the episodes of one group as the model sees them."""
  params = common.initial_state(run).policy
  # No more than is shown.
  few = -(-4 // run.recipe.group_size)
  group = common.source(run, few).batch(0, params).episodes
  teacher = train.place_teacher(run.config, run.recipe, run.mesh)
  recipe = dataclasses.replace(run.recipe, teacher=teacher)
  stacked = train.probed(
    recipe,
    run.config,
    params,
    group,
    run.world,
    common.batch_shape(run, len(group), 1),
  )
  inspecting.show_group(
    group,
    run.world.tokenizer,
    inspecting.credit_of(recipe, train.apply_of(run.config), params, stacked),
  )
