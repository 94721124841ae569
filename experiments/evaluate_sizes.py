"""Scores a run in one world at several sizes, in one process.

  python experiments/evaluate_sizes.py --init_from=runs/mine --size=chunks \\
    --sizes=4,8,16 --spare=4 --into=runs/mine/sizes

All is as in evaluate.py, but that a setting of the environment takes each of
--sizes, with as many turns and --spare more. It writes scores.json: reward,
success, the share that a limit ended, and the peak, which is the tokens of an
episode's longest segment, each a mean over episodes.
"""

from collections.abc import Sequence
import json
import pathlib
import statistics

from absl import flags

from agentic_jax import environments
from agentic_jax import evaluate
from agentic_jax import types
from experiments import common
from experiments import evaluate as evaluate_script
from experiments import policies
from experiments import run_config
from experiments import worlds

FLAGS = flags.FLAGS


def score(played: Sequence[types.Episode]) -> dict[str, float]:
  """Means over episodes."""
  every: dict[str, list[float]] = {
    'reward': [e.reward for e in played],
    'success': [float(e.success and not e.failure) for e in played],
    'truncated': [float(e.truncated) for e in played],
    'peak': [max(len(s.tokens) for s in e.segments) for e in played],
    'turns': [len(e.turns) for e in played],
  }
  return {name: statistics.fmean(values) for name, values in every.items()}


def main() -> None:
  """Plays each size, and writes what came of it."""
  run = evaluate_script.build()
  tasks = run.splits[FLAGS.split]
  tasks = tasks[: FLAGS.first or len(tasks)]
  params = policies.of_run(FLAGS.init_from, run.config)
  name, _, query = FLAGS.environment.partition('?')
  found = {}
  for size in map(int, FLAGS.sizes):
    settings = worlds.literals(query) | {FLAGS.size: size}
    world = run.world._replace(
      environment=environments.load(name, **settings),
      limits=run.world.limits._replace(turns=size + FLAGS.spare),
    )
    _, played = evaluate.evaluate(
      run.sampler,
      world,
      tasks,
      params,
      workers=run.workers,
      samples=FLAGS.samples,
      temperature=run.sampling.temperature,
    )
    found[size] = score(played)
    print(size, {key: round(value, 3) for key, value in found[size].items()})
  into = pathlib.Path(FLAGS.into)
  into.mkdir(parents=True, exist_ok=True)
  command = run_config.settings_of(run)['command']
  record = {'command': command, 'sizes': found}
  (into / 'scores.json').write_text(json.dumps(record, indent=2) + '\n')


flags.adopt_module_key_flags(evaluate_script)

if __name__ == '__main__':
  flags.DEFINE_string('size', '', 'The setting of the environment.')
  flags.DEFINE_list('sizes', [], 'Its values.')
  flags.DEFINE_integer('spare', 4, 'Turns besides the size.', lower_bound=0)
  common.main(main)
