"""A run, built from its flags.

A script of a paper or of your own imports this module and calls `main`, with
a function that calls `train_run(build(recipe))`.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import logging
import pathlib
import sys
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax

from agentic_jax import __version__
from agentic_jax import batching
from agentic_jax import evaluate
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import pool
from agentic_jax.tasks import samplers
from experiments import admission
from experiments import pages
from experiments import policies
from experiments import run_config
from experiments import run_flags
from experiments import sights
from experiments import worlds

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(run_flags)


class Run(NamedTuple):
  """All that the flags describe."""

  workdir: pathlib.Path
  make_recipe: Callable[..., recipe_lib.Recipe]
  settings: dict[str, Any]
  recipe: recipe_lib.Recipe
  world: rollout.World
  published: pretrained.Published | None  # None is a fresh model.
  config: config_lib.TransformerConfig
  sampling: recipe_lib.Sampling
  sampler: sampler_lib.Sampler
  workers: rollout.Workers
  mesh: jax.sharding.Mesh
  splits: Mapping[str, Sequence[types.Task]]
  draws: samplers.Make  # Of the tasks to train on.


def define_defaults(**defaults: Any) -> None:
  """Changes the defaults of flags; for the top of a script."""
  for name, value in defaults.items():
    FLAGS.set_default(name, value)


def main(
  function: Callable[[], None],
  recipe: Callable[..., recipe_lib.Recipe] | None = None,
) -> None:
  """Runs a script's function under absl, with errors of the user on one line.

  Args:
    function: what to do once the flags are parsed.
    recipe: the maker whose settings `--help` lists; by default the one that
      --recipe names.
  """

  def guarded(argv):
    if len(argv) > 1:
      raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
    train.keep_freed_memory()
    # It tells of every accelerator that is not there.
    logging.getLogger('jax').setLevel(logging.WARNING)
    try:
      function()
    except (ValueError, RuntimeError, ArithmeticError, OSError) as error:
      if sys.flags.dev_mode or not _is_ours(error):
        raise
      sys.exit(f'Error: {error}')
    except KeyboardInterrupt:
      sys.exit(
        'Interrupted; the same command goes on from the last checkpoint, or '
        'begins again where there is none yet.'
      )
    except train.Stopped as stopped:
      print(stopped)

  module = sys.modules['__main__']
  if {'--help', '-h', '--helpshort', '--helpfull'} & set(sys.argv):
    words = ' '.join(sys.argv).replace('=', ' ').split()
    name = str(FLAGS['recipe'].default)
    if '--recipe' in words[:-1]:
      name = words[words.index('--recipe') + 1]
    try:
      recipe = recipe or pages.load(name)
    except ValueError as error:
      sys.exit(f'Error: {error}')
    described = describe_settings(pages.name_of(recipe, name), recipe)
    module.__doc__ = (module.__doc__ or '') + described
  app.run(guarded)


def _is_ours(error: BaseException) -> bool:
  """Whether the error was raised here or in the package, and so is a message.

  One that comes out of a user's own file, or out of a library, wants its
  traceback. `python -X dev` shows all tracebacks.
  """
  trace = error.__traceback__
  while trace is not None and trace.tb_next is not None:
    trace = trace.tb_next
  name = trace.tb_frame.f_globals.get('__name__', '') if trace else ''
  ours = ('agentic_jax', 'experiments', '__main__')
  return isinstance(error, OSError) or name.split('.')[0] in ours


def describe_settings(name: str, recipe: Callable) -> str:
  """The settings of a recipe, for --help."""
  lines = [
    f'  {s.name}={s.default!r}: {s.meaning}'
    for s in recipe_lib.settings_of(recipe).values()
  ]
  title = f'\nSettings of the recipe {name}, for --set:'
  return '\n'.join([title, *lines, ''])


def build(
  recipe: Callable[..., recipe_lib.Recipe] | None = None,
  base_limits: rollout.Limits | None = None,
  sampling: Callable[..., recipe_lib.Sampling] | None = None,
  **settings: Any,
) -> Run:
  """Builds what the flags describe; reads no file but of tasks and drafts.

  Args:
    recipe: the paper's maker; by default what --recipe names.
    base_limits: the script's own limits; --limit goes before them.
    sampling: of a script that does not train: makes of the recipe's sampling
      that of the script. Otherwise what might have been sampled is recorded.
    **settings: the script's own defaults of the recipe's settings; --set goes
      before them.

  Raises:
    ValueError: a flag does not make sense; says what would.
  """
  make = recipe or pages.load(FLAGS.recipe)
  settings = settings | recipe_lib.parse(make, FLAGS.set)
  made = make(**settings)
  _refuse_idle_asynchrony(made)
  mesh = sharding.make_mesh(FLAGS.mesh)
  published = policies.find(FLAGS.model)
  world = worlds.make(
    environment=FLAGS.environment,
    contexts=FLAGS.context,
    words=lambda actions: policies.tokenizer_of(
      *(FLAGS.tokenizer, published, actions.tags, actions.result),
      images=sights.sees(FLAGS.model),
    ),
    limit=FLAGS.limit,
    base_limits=base_limits or rollout.Limits(),
    seed=FLAGS.seed,
  )
  kind, number = rollout.parse_workers(FLAGS.workers)
  world = worlds.host(world, FLAGS.environment, kind, number)
  rollout.refuse_branching(world.environment, made.branch, made.group_size)
  if made.probe is not None:
    made.probe.refuse(world)
  splits = {
    split: worlds.tasks_of(FLAGS.tasks, FLAGS.environment, FLAGS.workdir, split)
    for split in ('train', 'validation', 'test')
  }
  if made.demonstrations:
    worlds.refuse_inimitable(world, splits['train'])
  config = policies.configure(
    FLAGS.model,
    published,
    world.tokenizer,
    positions=world.limits.segment_tokens,
    output_heads=made.heads,
    dtype=FLAGS.dtype,
  )
  seen = sights.of_world(config, published, world.tokenizer)
  world = world._replace(images=seen)
  policies.refuse_idle_axes(mesh, config, FLAGS.mesh)
  chosen = made.sampling if sampling is None else sampling(made.sampling)
  return Run(
    pathlib.Path(FLAGS.workdir),
    make,
    settings,
    made,
    world,
    published,
    config,
    chosen,
    admission.sampler(
      *(config, world, chosen, mesh),
      record=sampling is None,
      most_slots=FLAGS.tasks_per_step * made.group_size,
    ),
    rollout.Workers(number),
    mesh,
    splits,
    worlds.draws_of(FLAGS.sampler, splits['train'], world, made),
  )


def _refuse_idle_asynchrony(made: recipe_lib.Recipe) -> None:
  """Raises ValueError where --staleness or --swap would change nothing."""
  if FLAGS.staleness and not made.uses_sampler:
    raise ValueError(
      f'--staleness={FLAGS.staleness} samples ahead of the updates, and this '
      'recipe imitates: nothing is sampled. Leave it out, or take a recipe '
      'that samples, such as --recipe=async_grpo.'
    )
  if train.parse_swap(FLAGS.swap) is not None and not FLAGS.staleness:
    raise ValueError(f'--swap={FLAGS.swap} wants --staleness=1 or more.')


def batch_shape(run: Run, groups: int, group_size: int) -> batching.Shape:
  """The sizes of a batch within the run's limits.

  Args:
    run: from `build`.
    groups: of whole episodes; each agent's parts in them are a group.
    group_size: episodes of a group.
  """
  bounds = run.world.limits
  segments = 1 if FLAGS.context.startswith('append_all') else bounds.turns
  action_tokens = bounds.turns * bounds.action_tokens
  if segments == 1:
    action_tokens = min(action_tokens, bounds.segment_tokens)
  return batching.shape_for(
    groups=groups * run.world.agents,
    group_size=group_size,
    turns=bounds.turns,
    segment_tokens=bounds.segment_tokens,
    segments=segments,
    action_tokens=action_tokens,
    microbatch_rows=FLAGS.microbatch_rows,
    images=sights.of_rows(run.world),
  )


def evaluator(run: Run, steps: int) -> train.Evaluate | None:
  """Evaluates on the test split before and after, else on validation.

  None where nothing is to be evaluated.
  """
  if FLAGS.evaluate_every < 0:
    return None

  def play(step: int, params: Any, report: Callable[[int, int], None]):
    last = step in (0, steps)
    return evaluate.evaluate(
      run.sampler,
      run.world,
      run.splits['test' if last else 'validation'],
      params,
      workers=run.workers,
      step=step,
      split='evaluate' if last else 'validation',
      report=report,
    )

  return play


def source(run: Run, tasks_per_step: int) -> train.Source:
  """Where the run's batches come from: rollouts, or demonstrations.

  A recipe that does not look at a sampler imitates: the environment's oracle
  where it has one, otherwise the answers of the tasks. One that asks for
  `demonstrations` has them in each group, beside the rollouts.
  """
  drawn = pool.Pool(run.splits['train'], FLAGS.seed, run.draws)
  script = functools.partial(worlds.imitated, run.world)
  if run.recipe.uses_sampler:
    return rollout.Rollouts(
      run.sampler,
      run.world,
      drawn,
      run.workers,
      tasks_per_step=tasks_per_step,
      group_size=run.recipe.group_size,
      temperature=run.recipe.sampling.temperature,
      keep=run.recipe.keep,
      demonstrations=run.recipe.demonstrations,
      script=script,
      greedy_members=run.recipe.greedy_members,
      branch=run.recipe.branch,
    )
  return rollout.Demonstrations(
    run.world,
    drawn,
    script,
    episodes_per_step=tasks_per_step * run.recipe.group_size,
  )


def train_run(
  run: Run,
  params: Any = None,
  *,
  what: str = 'training',
  evaluate: train.Evaluate | None = None,
) -> train.Result:
  """Trains as the flags say, and writes the run directory.

  Args:
    run: from `build`.
    params: to begin with; see `initial_state`.
    what: said in the progress display.
    evaluate: what is measured on held-out tasks; by default success.
  """
  train.open_run(
    run.workdir, run_config.settings_of(run), resume=FLAGS.resume == 'auto'
  )
  group_size = run.recipe.group_size
  plan = train.Plan(
    config=run.config,
    shape=batch_shape(run, FLAGS.tasks_per_step, group_size),
    mesh=run.mesh,
    workdir=run.workdir,
    prefix_tree=FLAGS.prefix_tree,
    steps=FLAGS.steps,
    pieces=run.world.tokenizer.pieces,
    what=what,
    world=run.world,
    evaluate=evaluate or evaluator(run, FLAGS.steps),
    evaluate_every=max(FLAGS.evaluate_every, 0),
    staleness=FLAGS.staleness,
    swap=FLAGS.swap,
    checkpoint_every=FLAGS.checkpoint_every,
  )
  batches = source(run, FLAGS.tasks_per_step)
  return train.run(run.recipe, batches, plan, initial_state(run, params))


def initial_state(run: Run, params: Any = None) -> train.TrainState:
  """What a run begins with.

  Args:
    run: from `build`.
    params: by default those of --init_from, those that --model was published
      with, or fresh ones.
  """
  if params is None and FLAGS.init_from:
    params = policies.of_run(FLAGS.init_from, run.config)
  published = None
  if params is None and run.published is not None:
    published = pretrained.load(run.published, run.config, run.mesh)
  key = jax.random.key(FLAGS.seed)
  state = train.init_state(run.config, run.recipe, run.mesh, key, published)
  if params is None:
    return state
  return train.begin_with(state, params, run.recipe.optimizer)


def finish(run: Run, result: train.Result, **more: Any) -> dict[str, Any]:
  """Writes summary.json; returns it."""
  records = metrics.read(run.workdir)
  at = lambda i: records[i].get('evaluate/success') if records else None
  summary = {
    'success_before': at(0),
    'success_after': at(-1),
    **result.summary,
    'command': ' '.join(sys.argv),
    'version': __version__,
    **more,
  }
  path = run.workdir / 'summary.json'
  path.write_text(json.dumps(summary, indent=2) + '\n')
  return summary
