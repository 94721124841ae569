"""Talks to a trained policy: give it a task, watch it act.

  python experiments/chat.py --init_from=runs/quickstart
  echo '3^17 mod 41' | python experiments/chat.py --init_from=runs/quickstart

The environment is the run's own, so a tool call is answered for real. With
--temperature above 0 the policy samples; by default it is greedy.
"""

import json
import pathlib
import sys

from absl import flags
import rich.console

from agentic_jax import rollout
from agentic_jax import train
from agentic_jax import types
from experiments import common
from experiments import inspecting

FLAGS = flags.FLAGS

flags.DEFINE_float('temperature', 0.0, 'Of sampling; 0 is greedy.', 0.0)


def _restore_flags(workdir: pathlib.Path) -> None:
  """Takes the flags of the run, but for those given on the command line."""
  path = workdir / 'config.json'
  if not path.exists():
    raise ValueError(
      f'--init_from={str(workdir)!r} is no run directory: it has no '
      'config.json. Name one, such as runs/quickstart.'
    )
  for name, value in json.loads(path.read_text())['flags'].items():
    if name in FLAGS and not FLAGS[name].present and name != 'init_from':
      setattr(FLAGS, name, value)


def _limits(workdir: pathlib.Path) -> rollout.Limits:
  config = json.loads((workdir / 'config.json').read_text())
  return rollout.Limits(**config['limits'])


def main() -> None:
  """Reads a task a line from the terminal and plays it."""
  workdir = pathlib.Path(FLAGS.init_from or 'runs/quickstart')
  _restore_flags(workdir)
  FLAGS['workdir'].value = str(workdir)
  FLAGS['limit'].value = []
  run = common.build(base_limits=_limits(workdir))
  run.sampler.load(train.load_params(workdir), 0)
  console = rich.console.Console()
  interactive = sys.stdin.isatty()
  if interactive:
    print('A task a line, such as 3^17 mod 41; an empty line ends.')
  for draw, line in enumerate(sys.stdin):
    prompt = line.strip()
    if not prompt:
      break
    (episode,) = rollout.collect(
      run.sampler,
      run.world,
      [rollout.Request(draw, types.Task(draw, prompt), 0)],
      temperature=FLAGS.temperature,
      workers=run.workers,
    )
    inspecting.show(console, run.world.tokenizer, episode)


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.main(main)
