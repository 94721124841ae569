"""Search-R1: reinforcement learning of when to search, and for what.

Paper: Search-R1: Training LLMs to Reason and Leverage Search Engines with
  Reinforcement Learning, 2025, arXiv:2503.09516; settings from its repository.
Changes: from grpo, 5 episodes a task and a divergence of 0.001 from the initial
  policy; what a search shows is not trained on, which is so in every recipe
  here, and `observation_weight` undoes for the paper's ablation. With PPO, as
  in most of the paper: --recipe=ppo.
Command: python experiments/search_proof.py, three seeds of all arms (see
  there); the page alone, from nothing: python experiments/search_r1.py. Without
  the mask --set observation_weight=1.
Result: 150 batches, three seeds, test questions: right 99.5/99.0/70.2 % against
  7.7/9.6/2.9 of the imitation and 0 where a search finds nothing; without the
  mask 0/0/24.0. One hop 1.0 searches, two hops 1.98/2.00/1.00. With 8 x 8
  episodes a batch and a rate of 1e-3 (docs/results.md).
Differences: entities of four letters instead of Wikipedia, and instead of Qwen
  or Llama a small policy that learnt to read, with pairs of letters as tokens
  (the page alone: one of bytes, fresh), and a warm start by imitation: right
  tags, random queries but for a tenth. The paper takes 512 questions a step in
  two minibatches, a rate of 1e-6, 500 tokens a turn and four searches; its
  prompt has an example, so that its scorer wants a second answer, where our
  grammar reads the policy's own text alone. Its loss is a mean over tokens.
  With --recipe=ppo there is no divergence. Whatever weighs nothing has no
  gradient at all: the share of what was observed is exactly 0 with the mask.

Unless --set and --limit say otherwise, learning_rate is 2e-4, decay_steps is
the whole RL phase, and an episode has 5 turns of 40 tokens in a segment of 255.
"""

import dataclasses

from absl import flags
import jax
import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import report
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.environments import kb_search
from experiments import common
from experiments import imitation

LIMITS = rollout.Limits(turns=5, action_tokens=40, segment_tokens=255)


def observed(trajectory: types.Trajectory) -> types.Array:
  """Tokens that answered an action: bool [B, T].

  Those of a segment that come after an action token and are none themselves;
  the prompt is not among them.
  """
  before = jnp.cumsum(trajectory.action_mask, axis=-1)
  begins = jnp.where(trajectory.position == 0, before, 0)
  # No action opens a segment, so this counts the actions before it began.
  earlier = jax.lax.cummax(begins, axis=begins.ndim - 1)
  present = trajectory.segment > 0
  return present & (before > earlier) & ~trajectory.action_mask


def unmasked(trajectory: types.Trajectory) -> types.Trajectory:
  """As if the policy had sampled what it observed.

  The ratio there is to the policy as the batch began.
  """
  too = observed(trajectory)
  return trajectory._replace(
    action_mask=trajectory.action_mask | too,
    sampler_logprobs=jnp.where(
      too, trajectory.proximal_logprobs, trajectory.sampler_logprobs
    ),
  )


def recipe(
  *,
  group_size: int = 5,
  observation_weight: float = 0.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation, a mean over tokens.

  Args:
    group_size: episodes of a task; at least 2.
    observation_weight: of a token that was observed, relative to one that was
      sampled, in the loss and in the divergence; 0 is the paper's mask, 1 its
      ablation.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.

  Raises:
    ValueError: a weight is negative.
  """
  if observation_weight < 0:
    raise ValueError(f'A weight is not negative, got {observation_weight=}.')
  base = recipe_lib.grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )
  names = ('policy', 'kl') if kl_coefficient else ('policy',)
  masked = dataclasses.replace(
    base, weigh=recipe_lib.terms(recipe_lib.weigh_tokens, *names)
  )
  if not observation_weight:
    return masked

  def score(apply, networks, trajectory, turns):
    scored = recipe_lib.score_proximal(apply, networks, trajectory, turns)
    return base.score(apply, networks, scored, turns)

  def credit(trajectory, turns):
    found = advantages.standardise(
      recipe_lib.scores(turns), turns.group, num_groups=turns.group.size
    )
    trained = trajectory.action_mask | observed(trajectory)
    spread = found[jnp.maximum(trajectory.episode, 0)]
    return types.Credit(jnp.where(trained, spread, 0.0))

  def loss(outputs, trajectory, credit):
    return base.loss(outputs, unmasked(trajectory), credit)

  def weigh(trajectory, turns):
    del turns
    scale = jnp.where(observed(trajectory), observation_weight, 1.0)
    trained = trajectory.action_mask | observed(trajectory)
    weights = scale * losses.token_weights(trained)
    return dict.fromkeys(names, weights)

  return dataclasses.replace(
    base, score=score, credit=credit, loss=loss, weigh=weigh
  )


def main() -> None:
  """Imitation, reinforcement learning, summary and report."""
  run = common.build(
    base_limits=LIMITS, learning_rate=2e-4, decay_steps=imitation.updates()
  )
  imitation.train_both(run, kb_search.wander)
  print(f'The report: {report.write(run.workdir)}')


flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(imitation)

if __name__ == '__main__':
  common.define_defaults(
    workdir='runs/search_r1',
    environment='kb_search?max_turns=5',
    tasks='kb_search_short',
    recipe='search_r1',
    steps=150,
    warm_steps=300,
    skill=0.0,
  )
  common.main(main)
