"""MEM1: each turn rewrites one state, and nothing else of the past is seen.

Paper: MEM1, Learning to Synergize Memory and Reasoning for Efficient
  Long-Horizon Agents, 2025, arXiv:2506.15841.
Changes: from ppo, the context is the question and the last turn, --context=
  keep_last: what a thought does not say is forgotten. Undiscounted, and KL to
  the initial policy. The world asks for two things at once.
Command: python experiments/memory_proof.py --paper=mem1 (see there); the page
  alone, from a policy that has the form: python experiments/mem1.py
  --model=recall --tokenizer=runs/proofs/base/tokenizer/tokenizer.json
  --init_from=runs/proofs/mem1/seed_0/forgets
Result: trained on 2 things for 40 batches, three seeds, reward on test tasks
  about 2, 4, 8, 16: 99.2 ± 1.4, 72.5 ± 9.0, 19.0 ± 9.3, 3.9 ± 5.6 %; the
  imitation it began with 74.8, 44.3, 20.6, 7.0; all in one context, until it is
  full, 100, 100, 0, 0; with the state dropped 31.8, 0, 0.3, 0. The context
  grows with what is held, from 40 to 100 tokens (docs/results.md).
Differences: each turn is a segment, trained in the context that it was sampled
  in. The released code flattens an episode into one sequence under a mask, in
  which a turn sees what it did not see when it was sampled, and positions that
  it did not have. The thought is the state; the paper's first version has a tag
  of its own for it. The reward is the share of the questions, not their number.
  KL is a term of the loss, by k3, where the paper's code takes it from rewards.
  The policy is small; before its 2 things are rewarded it has imitated the form
  with up to 16, by a script that loses facts.
"""

import dataclasses

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import common
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.5,
  kl_coefficient: float = 0.001,
  **critic,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation over the turns of a context that forgets.

    A = GAE along all action tokens of the episode, whatever segment they are in

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a scalar value may move from where it was; 0 is no clip.
    kl_coefficient: of k3 to the frozen initial policy; 0 is none.
    **critic: see `recipe.critic` and `recipe.training`.
  """
  base = recipe_lib.ppo(
    group_size=group_size,
    discount=discount,
    lambda_=lambda_,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    **critic,
  )
  if not kl_coefficient:
    return base

  def loss(outputs, trajectory, credit):
    divergence = losses.kl_k3(
      outputs.logprobs, trajectory.reference_logprobs, trajectory.action_mask
    )
    found = base.loss(outputs, trajectory, credit)
    return found | {'kl': kl_coefficient * divergence}

  def weigh(trajectory, turns):
    return base.weigh(trajectory, turns) | {
      'kl': recipe_lib.weigh_tokens(trajectory, turns)
    }

  return dataclasses.replace(
    base,
    loss=loss,
    weigh=weigh,
    score=recipe_lib.score_both,
    uses_reference=True,
  )


if __name__ == '__main__':
  common.define_defaults(environment='multi_obj', context='keep_last')
  run.page('mem1')
