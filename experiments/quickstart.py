"""Two phases that train a tool-using agent, and a page that shows what it did.

The tasks are sums that a small model cannot do in its head: modular powers,
long products, linear equations. The agent may think, call a pocket calculator
that does one operation a call, read what it says, and answer. Equations need
two calls, the second of which depends on the first.

  1. A fresh transformer imitates scripted demonstrations of right form and
     poor strategy: mostly it guesses.
  2. Multi-turn reinforcement learning: a verifier pays for right answers, calls
     and tokens cost a little.

Paper: none of its own; --recipe picks one of the canonical recipes.
Changes: none; the defaults below are those of a small model.
Command: make quickstart ARGS="--seed=1 --workdir=runs/mine"
Result: see BUILD_NOTES.md, heading Results.
Differences: none.

Unless --set and --limit say otherwise, learning_rate is 2e-4, decay_steps is
the whole RL phase, and an episode has 6 turns of 40 tokens in a segment of 127,
at a price of 0.0002 a token.

It ends with held-out success before and after, in summary.json, and a
report.html with curves, episodes and the credit of `3^17 mod 41` under several
estimators.
"""

import time

from absl import flags

from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import report
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax.environments import demonstrations
from agentic_jax.tasks import pool
from experiments import common
from experiments import pages
from experiments import run_config
from experiments import worked_example

FLAGS = flags.FLAGS

flags.DEFINE_integer('warm_steps', 400, 'Steps of imitation.', lower_bound=1)
flags.DEFINE_float(
  'skill', 0.3, 'Share of demonstrations with the good strategy.', 0.0, 1.0
)

_WARM_EPISODES = 64  # Demonstrations of a step of imitation.

LIMITS = rollout.Limits(
  turns=6, action_tokens=40, segment_tokens=127, token_price=0.0002
)


def _updates() -> int:
  """Optimiser steps of the RL phase: the schedule's length."""
  make = pages.load(FLAGS.recipe)
  chosen = recipe_lib.parse(make, FLAGS.set)
  return FLAGS.steps * chosen.get('epochs', 1) * chosen.get('minibatches', 1)


def warm_start(run: common.Run) -> train.Result:
  """Imitates imperfect demonstrations, as a run of its own."""
  settings = dict(
    learning_rate=2e-3, warmup_steps=20, decay_steps=FLAGS.warm_steps
  )
  recipe = recipe_lib.supervised(**settings)
  run = run._replace(workdir=run.workdir / 'warm_start', recipe=recipe)
  environment = run.world.environment
  source = rollout.Demonstrations(
    run.world,
    pool.Pool(run.splits['train'], FLAGS.seed),
    lambda task, seed: demonstrations.demonstrate(
      environment, task, seed, skill=FLAGS.skill
    ),
    episodes_per_step=_WARM_EPISODES,
  )
  shape = common.batch_shape(run, _WARM_EPISODES, 1)
  plan = train.Plan(
    config=run.config,
    shape=shape,
    mesh=run.mesh,
    workdir=run.workdir,
    steps=FLAGS.warm_steps,
    pieces=run.world.tokenizer.pieces,
    what='imitation',
    evaluate=common.evaluator(run, FLAGS.warm_steps),
    checkpoint_every=100,
    record_every=100,
  )
  described = run_config.settings_of(run)
  described['recipe'] = {'name': 'supervised', 'settings': settings}
  train.open_run(run.workdir, described, resume=FLAGS.resume == 'auto')
  return train.run(recipe, source, plan, common.initial_state(run))


def main() -> None:
  """Imitation, reinforcement learning, summary and report."""
  started = time.monotonic()
  if FLAGS.init_from:
    raise ValueError(
      f'--init_from={FLAGS.init_from!r}: the quickstart begins with a fresh '
      'policy and its own imitation. To train on from a run use '
      'experiments/run.py --init_from=...'
    )
  run = common.build(
    base_limits=LIMITS, learning_rate=2e-4, decay_steps=_updates()
  )
  common.introduce(run)
  warm = warm_start(run)
  result = common.train_run(run, warm.state.policy, what='RL')
  before = metrics.read(run.workdir / 'warm_start')[0]['evaluate/success']
  records = metrics.read(run.workdir)
  seconds = (
    warm.summary['seconds_training'] + result.summary['seconds_training']
  )
  summary = common.finish(
    run,
    result,
    success_before=before,
    success_warm=records[0]['evaluate/success'],
    seconds_training=seconds,
    steps=warm.summary['steps'] + result.summary['steps'],
  )
  worked_example.write(run, train.load_params(run.workdir / 'warm_start'))
  page = report.write(run.workdir)
  print(
    f'\nHeld-out success: {summary["success_before"]:.1%} untrained, '
    f'{summary["success_warm"]:.1%} after imitation, '
    f'{summary["success_after"]:.1%} after RL '
    f'({len(run.splits["test"])} test tasks, greedy).\n'
    f'Training took {seconds:.0f} s, all of it '
    f'{time.monotonic() - started:.0f} s. The report: {page}'
  )


common.define_defaults(
  workdir='runs/quickstart',
  steps=80,
)

flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.main(main)
