"""Two phases that train a tool-using agent, and a page that shows what it did.

The tasks are sums that a small model cannot do in its head: modular powers,
long products, linear equations. The agent may think, call a pocket calculator
that does one operation a call, read what it says, and answer. Equations need
two calls, the second of which depends on the first.

  1. A fresh transformer imitates scripted demonstrations of right form and
     poor strategy: mostly it guesses.
  2. Multi-turn reinforcement learning: a verifier pays for right answers, calls
     and tokens cost a little.

Paper: none of its own; --recipe picks a page of this folder.
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

from absl import flags

from agentic_jax import report
from agentic_jax import rollout
from agentic_jax import train
from experiments import common
from experiments import imitation
from experiments import worked_example

LIMITS = rollout.Limits(
  turns=6, action_tokens=40, segment_tokens=127, token_price=0.0002
)


def main() -> None:
  """Imitation, reinforcement learning, summary and report."""
  run = common.build(
    base_limits=LIMITS, learning_rate=2e-4, decay_steps=imitation.updates()
  )
  imitation.train_both(run)
  worked_example.write(run, train.load_params(run.workdir / 'warm_start'))
  print(f'The report: {report.write(run.workdir)}')


flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(imitation)

if __name__ == '__main__':
  common.define_defaults(workdir='runs/quickstart', steps=80)
  common.main(main)
