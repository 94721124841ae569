"""Scores an agent on held-out tasks: success, pass@k, turns, tokens, calls.

  python experiments/evaluate.py --init_from=runs/quickstart
  python experiments/evaluate.py --init_from=runs/quickstart --samples=16 \\
    --sample temperature=1 --sample top_p=0.9
  python experiments/evaluate.py --agent=oracle --environment=corridor
  python experiments/evaluate.py --model=smollm2-135m --environment=tool_math
  python experiments/evaluate.py --environment=tool_math \\
    --endpoint=http://127.0.0.1:8000/v1,model=NAME --limit=action_tokens=512

The agent is the policy of a run or of --model, greedy unless --sample says
otherwise; or the scripted solver of the environment; or one that takes any of
the actions that the environment calls admissible, which may well be right; or
whoever answers at an endpoint of OpenAI's interface, such as serve.py, whose
key is in the environment variable OPENAI_API_KEY. A run that is served scores
as it does by itself.

It prints a table and writes scores.json, every episode, and a page. Intervals
are 95 %, over tasks. The same command gives the same scores, whatever the
number of workers.
"""

from collections.abc import Callable, Sequence
import functools
import json
import pathlib
import re
import sys
import time
from typing import Any

from absl import flags
import rich.console
import rich.table

from agentic_jax import checkpoint
from agentic_jax import evaluate
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import report
from agentic_jax import train
from agentic_jax import types
from experiments import common
from experiments import endpoints
from experiments import policies
from experiments import run_config
from experiments import sample_flags
from experiments import worlds

FLAGS = flags.FLAGS

flags.DEFINE_enum(
  'agent', 'policy', ['policy', 'oracle', 'random'], 'Who acts.'
)
flags.DEFINE_string(
  'endpoint',
  '',
  'The agent is whoever answers here: URL,model=NAME. Further settings: '
  'key=VARIABLE of the environment that holds the key, role=tool tells '
  'observations by that role, tools=yes offers the tools of the world as '
  'functions, system=FILE opens each conversation, seconds=60 and retries=2 of '
  'a request. --workers is how many episodes are played at once.',
)
flags.DEFINE_enum(
  'split', 'test', ['train', 'validation', 'test'], 'Of the tasks.'
)
flags.DEFINE_integer('samples', 1, 'Episodes of each task.', lower_bound=1)
flags.DEFINE_integer(
  'first', 0, 'Play so many tasks, the first; 0 is all.', lower_bound=0
)
flags.DEFINE_multi_integer(
  'pass_at',
  [],
  'A k of pass@k, at most --samples. May be repeated; by default powers of 2.',
)
flags.DEFINE_string(
  'into',
  '',
  'Directory to write to; by default one in evaluations/ of the run, or of '
  '--workdir.',
)

Report = Callable[[int, int], None]


def build() -> common.Run:
  """The run that is evaluated, or what the flags describe."""
  if not FLAGS.init_from:
    return common.build(sampling=sample_flags.chosen)
  bounds = run_config.restore_flags(pathlib.Path(FLAGS.init_from))
  return common.build(base_limits=bounds, sampling=sample_flags.chosen)


def agent() -> str:
  """Who acts."""
  return 'endpoint' if FLAGS.endpoint else FLAGS.agent


def _asked(run: common.Run, tasks, told) -> list[types.Episode]:
  """The episodes of --endpoint."""
  fields = _fields(run.sampling)
  address = endpoints.parse(FLAGS.endpoint)
  asked = endpoints.Agent(address, run.world, fields)
  return evaluate.evaluate_agent(
    asked.play,
    tasks,
    samples=FLAGS.samples,
    threads=run.workers.number,
    report=told,
  )


def _fields(sampling: recipe_lib.Sampling) -> dict[str, float]:
  """How an endpoint is to sample.

  Raises:
    ValueError: it cannot be asked for that.
  """
  asked = {'temperature': sampling.temperature}
  if sampling.top_p != 1:
    asked['top_p'] = sampling.top_p
  plain = recipe_lib.Sampling(sampling.temperature, top_p=sampling.top_p)
  if sampling != plain:
    raise ValueError(
      f'--sample={FLAGS.sample}: an endpoint is asked for temperature and '
      'top_p alone; leave the others out.'
    )
  return asked


def play(
  run: common.Run, tasks: Sequence[types.Task], told: Report | None = None
) -> list[types.Episode]:
  """The episodes of --agent.

  Raises:
    ValueError: there is no such agent here.
  """
  if FLAGS.endpoint:
    return _asked(run, tasks, told)
  if FLAGS.agent == 'policy':
    _warn(run)
    if FLAGS.init_from:
      params = policies.of_run(FLAGS.init_from, run.config)
    else:
      params = common.initial_state(run).policy
    _, played = evaluate.evaluate(
      run.sampler,
      run.world,
      tasks,
      params,
      workers=run.workers,
      samples=FLAGS.samples,
      temperature=run.sampling.temperature,
      report=told,
    )
    return played
  script: Callable[..., Sequence[str]]
  script = functools.partial(worlds.guessed, run.world)
  if FLAGS.agent == 'oracle':
    if FLAGS.samples > 1:
      raise ValueError(
        f'--samples={FLAGS.samples}: an oracle plays a task the same way each '
        'time; leave it out.'
      )
    worlds.refuse_inimitable(run.world, tasks)

    def script(task, seed, member):
      del member
      return worlds.imitated(run.world, task, seed)

  return evaluate.evaluate_script(
    run.world, script, tasks, samples=FLAGS.samples, report=told
  )


def _warn(run: common.Run) -> None:
  """Says what may be a mistake."""
  if not FLAGS.init_from and run.published is None:
    print(
      'Warning: this policy is fresh, its parameters are random; name a run by '
      '--init_from, or a published --model.',
      file=sys.stderr,
    )
  if FLAGS.samples > 1 and not run.sampling.temperature:
    print(
      f'Warning: --samples={FLAGS.samples} of a greedy policy are alike unless '
      'the world is random; add --sample temperature=1.',
      file=sys.stderr,
    )


def folder(run: common.Run) -> pathlib.Path:
  """Where to write: named after what is asked for."""
  if FLAGS.into:
    return pathlib.Path(FLAGS.into)
  parts = [FLAGS.endpoint or FLAGS.agent, FLAGS.split, *FLAGS.sample]
  parts += [f'first={FLAGS.first}'] * bool(FLAGS.first)
  parts += [f'samples={FLAGS.samples}'] * (FLAGS.samples > 1)
  for name in ('environment', 'tasks', 'context', 'model', 'limit', 'seed'):
    if FLAGS[name].present:
      parts.append(f'{name}={FLAGS[name].value}')
  name = re.sub(r'[^\w=.-]+', '-', '_'.join(parts))
  return run.workdir / 'evaluations' / name


def powers(samples: int) -> list[int]:
  """1, 2, 4, ... up to a number, and the number itself."""
  return sorted({samples, *(2**i for i in range(samples.bit_length()))})


def table(found: Sequence[evaluate.Scores]) -> rich.table.Table:
  """The scores for a terminal; of pass@k only the largest k."""
  made = rich.table.Table(box=None)
  ks = [max(found[0].pass_at)] * (max(found[0].pass_at) > 1)
  names = ['tasks', 'success, %', *(f'pass@{k}, %' for k in ks)]
  names += ['turns', 'tokens', 'calls', 'reward']
  for name in ['', *names]:
    made.add_column(name, justify='right' if name else 'left', no_wrap=True)
  for own in found:
    shares = [own.success, *(own.pass_at[k] for k in ks)]
    means = [own.turns, own.tokens, own.calls, own.reward]
    made.add_row(
      own.name,
      str(own.tasks),
      *map(_share, shares),
      *(f'{value:.3g}' for value in means),
    )
  return made


def _share(found: evaluate.Estimate) -> str:
  low, high = (f'{100 * end:.0f}' for end in (found.low, found.high))
  return f'{100 * found.mean:.1f} \\[{low}, {high}]'


def as_json(found: evaluate.Scores) -> dict[str, Any]:
  """Scores as JSON."""
  record = found._asdict()
  record['success'] = found.success._asdict()
  record['pass_at'] = {
    str(k): own._asdict() for k, own in found.pass_at.items()
  }
  return record


def _step() -> int | None:
  """After how many steps the run's parameters are; None without a run."""
  if agent() != 'policy' or not FLAGS.init_from:
    return None
  checkpoints = pathlib.Path(FLAGS.init_from) / 'checkpoints'
  return checkpoint.Checkpoints(checkpoints).latest_step()


def _sampling_of(run: common.Run) -> dict[str, Any] | None:
  """How actions were sampled; None of an agent that does not sample."""
  if FLAGS.endpoint:
    return _fields(run.sampling)
  return run.sampling._asdict() if FLAGS.agent == 'policy' else None


def _tell_failures(played: Sequence[types.Episode]) -> None:
  """Says how many episodes were lost, and to what."""
  lost = [episode for episode in played if episode.failure]
  if lost:
    print(
      f'{len(lost)} of {len(played)} episodes failed and count as not solved. '
      f'The first: {lost[0].failure}: {lost[0].detail:.300}',
      file=sys.stderr,
    )


def main() -> None:
  """Plays, and writes what came of it."""
  ks = FLAGS.pass_at or powers(FLAGS.samples)
  for k in ks:
    evaluate.pass_at_k(FLAGS.samples, 0, k)
  if FLAGS.endpoint and FLAGS.agent != 'policy':
    raise ValueError(
      f'--endpoint and --agent={FLAGS.agent} are two agents; leave one out.'
    )
  run = build()
  tasks = run.splits[FLAGS.split]
  tasks = tasks[: FLAGS.first or len(tasks)]
  total = len(tasks) * FLAGS.samples
  began = time.monotonic()
  with metrics.Progress('evaluating', total) as shown:
    played = play(run, tasks, lambda done, _: shown.update(done, {}))
  seconds = time.monotonic() - began
  _tell_failures(played)
  found = evaluate.score(played, pass_at=ks)
  rich.console.Console(highlight=False).print(table(found))
  into = folder(run)
  into.mkdir(parents=True, exist_ok=True)
  config = run_config.settings_of(run)
  (into / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
  train.write_episodes(into, run.world.tokenizer.pieces, played)
  record = {
    'agent': agent(),
    'split': FLAGS.split,
    'samples': FLAGS.samples,
    'sampling': _sampling_of(run),
    'of': FLAGS.endpoint or FLAGS.init_from or FLAGS.model,
    'step': _step(),
    'environment': FLAGS.environment,
    'command': config['command'],
    'seconds': round(seconds, 1),
    'scores': [as_json(own) for own in found],
  }
  (into / 'scores.json').write_text(json.dumps(record, indent=2) + '\n')
  print(f'The page: {report.write_scores(into)}')


flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(sample_flags)

if __name__ == '__main__':
  common.main(main)
