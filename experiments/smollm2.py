"""A published model learns when to use a calculator, on a laptop.

SmolLM2-135M-Instruct, as it was published, in its own chat template, with
adapters of rank 16 on all its matrices. It has never seen the protocol, so it
first imitates scripted demonstrations of right form and poor strategy; then
it is trained by reinforcement learning on the quickstart's tasks. It goes on
where it stopped: the same command again.

Paper: none of its own; --recipe picks one, and is torl by default.
Changes: from the quickstart, the model, and fewer and longer episodes.
Command: python experiments/smollm2.py
Result: one seed, 85 minutes on one core of a busy machine. Held-out success is
  0.0 % untrained, 0.3 % after imitation, 66.7 % after RL: every task that needs
  one call is solved, and none that needs two. The curve and why: BUILD_NOTES,
  Published models; the report: docs/smollm2.html. The rate of imitation rose
  over 20 of its 30 steps then, and does over 3 now.
Differences: none.

Unless --set and --limit say otherwise, learning_rate is 2e-4, decay_steps is
the whole RL phase, group_size is 8, and an episode has 5 turns of 48 tokens in
a segment of 255. Neither tokens nor calls cost anything: with the quickstart's
prices the policy unlearned the tool (BUILD_NOTES, Negative results).
"""

from absl import flags

from agentic_jax import report
from agentic_jax import rollout
from experiments import common
from experiments import imitation

LIMITS = rollout.Limits(turns=5, action_tokens=48, segment_tokens=255)


def main() -> None:
  """Imitation, reinforcement learning, summary and report."""
  run = common.build(
    base_limits=LIMITS,
    group_size=8,
    learning_rate=2e-4,
    decay_steps=imitation.updates(),
  )
  imitation.train_both(run)
  print(f'The report: {report.write(run.workdir)}')


flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(imitation)

if __name__ == '__main__':
  common.define_defaults(
    workdir='runs/smollm2',
    environment='tool_math?call_price=0&invalid_price=0',
    model='smollm2-135m?rank=16',
    recipe='torl',
    steps=40,
    tasks_per_step=8,
    slots=32,
    microbatch_rows=8,
    warm_steps=30,
    warm_episodes=16,
    warm_rate=1e-3,
    skill=0.1,
    evaluate_every=10,
    checkpoint_every=5,
  )
  common.main(main)
