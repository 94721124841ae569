"""Trains any recipe on any environment and tasks, from flags alone.

  python experiments/run.py --environment=corridor --recipe=gigpo
  python experiments/run.py --environment=my_world.py:World \\
    --tasks=my_tasks.jsonl --recipe=my_recipe.py --set clip_high=0.3
  python experiments/run.py --recipe=supervised --tasks=pairs.jsonl
  python experiments/run.py --init_from=runs/quickstart/warm_start --inspect

Paper: whatever --recipe names.
Changes: none.
Command: as above.
Result: not run.
Differences: none.
"""

from absl import flags

from agentic_jax import report
from experiments import common
from experiments import introducing


def page(name: str) -> None:
  """Runs a page of this folder as a script: its recipe is the default."""
  common.define_defaults(recipe=name, workdir=f'runs/{name}')
  common.main(main)


def main() -> None:
  """Trains, and writes the report."""
  run = common.build()
  introducing.introduce(run)
  complete(run)


def complete(run: common.Run) -> None:
  """Trains a run, and writes its report."""
  result = common.train_run(run)
  summary = common.finish(run, result)
  page = report.write(run.workdir)
  before, after = summary['success_before'], summary['success_after']
  found = 'Held-out success was not measured.'
  if after is not None:
    found = f'Held-out success: {before:.1%} before, {after:.1%} after.'
  print(f'{found} The report: {page}')


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.main(main)
