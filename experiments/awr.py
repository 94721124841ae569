"""AWR: imitation of the policy's own actions, weighed by their advantage.

Paper: Advantage-Weighted Regression, 2019, arXiv:1910.00177.
Changes: from ppo, the policy's loss is its log-likelihood times the exponential
  of the advantage; there is no ratio and no clip.
Command: python experiments/awr.py --environment=corridor
Result: not run.
Differences: no replay buffer; each batch is the current policy's. Advantages
  are whitened, as ppo's are. The critic is the policy's own value head and is
  trained with the policy, not before it.
"""

import dataclasses

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 0.95,
  advantage_temperature: float = 1.0,
  weight_cap: float = 20.0,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Advantage-weighted regression with a learned critic.

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the advantage estimates and of the critic's targets.
    advantage_temperature: what whitened advantages are divided by; a small one
      imitates the best actions only.
    weight_cap: the largest weight of an action.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """
  if min(advantage_temperature, weight_cap) <= 0:
    raise ValueError(
      f'{advantage_temperature=} and {weight_cap=} must be positive; the '
      'defaults are 1 and 20.'
    )
  base = recipe_lib.ppo(
    group_size=group_size,
    discount=discount,
    lambda_=lambda_,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    entropy_coefficient=entropy_coefficient,
    **critic_settings,
  )

  def weights(trajectory, credit):
    return losses.exponential_weight(
      credit.advantages,
      trajectory.action_mask,
      temperature=advantage_temperature,
      cap=weight_cap,
    )

  def loss(outputs, trajectory, credit):
    imitated = losses.weighted_logprob(
      outputs.logprobs, weights(trajectory, credit)
    )
    return base.loss(outputs, trajectory, credit) | {'policy': imitated}

  def measure(outputs, trajectory, credit):
    del outputs
    return {'imitation_weight': weights(trajectory, credit)}

  return dataclasses.replace(base, loss=loss, measure=measure)


if __name__ == '__main__':
  run.page('awr')
