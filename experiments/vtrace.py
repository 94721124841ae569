"""V-trace: an actor and a critic that learn from what another policy did.

Paper: IMPALA: Scalable Distributed Deep-RL with Importance Weighted
  Actor-Learner Architectures, 2018, arXiv:1802.01561.
Changes: from ppo, targets and advantages are corrected for the sampler by
  truncated ratios, and the loss is that of REINFORCE.
Command: python experiments/vtrace.py --environment=corridor
Result: not run.
Differences: a step is an action token and nothing is discounted, where the
  paper has 0.99 a frame; no entropy bonus. The ratio is taken once, before the
  batch is trained on. While actions are sampled by the policy that learns, it
  differs from 1 by rounding only.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def score(apply, networks, trajectory, turns):
  """Fills in what the policy says now: values and log-probabilities."""
  del turns
  outputs = apply(networks.policy, trajectory)
  return trajectory._replace(
    values=outputs.values, proximal_logprobs=outputs.logprobs
  )


def recipe(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 1.0,
  value_cap: float = 1.0,
  trace_cap: float = 1.0,
  policy_cap: float = 1.0,
  value_coefficient: float = 0.5,
  **critic_settings,
) -> recipe_lib.Recipe:
  """The actor and critic of IMPALA.

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the value targets.
    value_cap: of the ratio that decides which policy the values are of.
    trace_cap: of the ratio that decides how far a surprise reaches back.
    policy_cap: of the ratio in the advantages.
    value_coefficient: of the value loss.
    **critic_settings: see `recipe.critic` and `recipe.training`; one epoch.

  Raises:
    ValueError: there is more than one epoch.
  """
  if critic_settings.get('epochs', 1) > 1:
    raise ValueError(
      f'epochs={critic_settings["epochs"]}: the ratio of V-trace is taken once '
      'a batch, so a second pass would learn from one that is wrong; use '
      '--set epochs=1, or --recipe=ppo.'
    )
  base = recipe_lib.ppo(
    group_size=group_size,
    value_coefficient=value_coefficient,
    value_clip=0.0,
    **critic_settings,
  )

  def credit(trajectory, turns):
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    ratio = losses.token_ratio(
      trajectory.proximal_logprobs,
      trajectory.sampler_logprobs,
      trajectory.action_mask,
    )
    found = advantages.vtrace(
      recipe_lib.token_rewards(trajectory, turns).astype(values.dtype),
      values,
      advantages.gather_tokens(ratio, turns.tokens),
      turns.tokens >= 0,
      discount=discount,
      lambda_=lambda_,
      value_cap=value_cap,
      trace_cap=trace_cap,
      policy_cap=policy_cap,
      bootstrap=recipe_lib.bootstrap_values(trajectory, turns),
    )
    return recipe_lib.credit_estimates(*found, trajectory, turns)

  def loss(outputs, trajectory, credit):
    policy = losses.weighted_logprob(outputs.logprobs, credit.advantages)
    return base.loss(outputs, trajectory, credit) | {'policy': policy}

  return dataclasses.replace(
    base,
    credit=credit,
    loss=loss,
    score=score,
    measure=recipe_lib.measure_nothing,
  )


if __name__ == '__main__':
  run.page('vtrace')
