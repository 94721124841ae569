"""The policy that proofs begin with: it can read, and has no strategy.

It stands in for the published models of the papers; see `reading.py`.
"""

import pathlib

from experiments import proving
from experiments import small_words

_TAGS = ('think', 'tool', 'memory', 'search', 'answer', 'result')
_WORLD = pathlib.Path(__file__).resolve().parent / 'reading.py'


def train(
  folder: pathlib.Path, words: str, reads: str, *, steps: int, smoke: bool
) -> list[str]:
  """Trains the policy that all arms begin with, unless it is there.

  Args:
    folder: of its run, in which its tokenizer lies, too.
    words: of `small_words.WORDS`.
    reads: settings of `reading.Reading`, such as 'letters=1&triples=0.0'.
    steps: of 64 answers each.
    smoke: two steps alone.

  Returns:
    Flags of the runs that go on: model and tokenizer.

  Raises:
    RuntimeError: it failed.
  """
  path = small_words.write(folder / 'tokenizer', words, _TAGS)
  steps = 2 if smoke else steps
  shared = ['--model=recall', f'--tokenizer={path}']
  rate = {'learning_rate': 4e-3, 'warmup_steps': 2 if smoke else 50}
  proving.run(
    [
      *('run.py', '--recipe=supervised', *shared, f'--workdir={folder}'),
      f'--environment={_WORLD}:Reading?{reads}',
      *('--tasks=multi_obj', f'--steps={steps}', '--tasks_per_step=64'),
      *(
        '--microbatch_rows=16',
        '--evaluate_every=-1',
        '--checkpoint_every=100',
      ),
      *proving.limits(
        {'turns': 1, 'action_tokens': 160, 'segment_tokens': 255}
      ),
      *proving.settings(rate | {'decay_steps': steps}),
    ]
  )
  return shared
