"""CHORD: imitation beside GRPO, with a share that falls, or token by token.

--set form=mu, the default: the share μ of imitation falls over the run.
--set form=constant: it stays.
--set form=phi: it stays, and tokens that are known or far off count less.

Paper: On-Policy RL Meets Off-Policy Experts, 2025, arXiv:2508.11408.
Changes: from grpo, the last members of each group are demonstrations, which are
  imitated and take no part in its comparison: (1 - μ) GRPO + μ imitation, each
  a mean over its own tokens.
Command: python experiments/chord.py --environment=corridor --set fall_steps=50
Result: not run.
Differences: demonstrations are the environment's oracle, or the answers of the
  tasks, of the same tasks as the rollouts; the paper draws them from a data set
  of their own. μ follows the number of the batch, which the sampled tokens
  carry, and not of the optimiser's updates; all passes over a batch have one μ.
  That the schedule falls from 0.9 to 0.05 in 200 steps is from memory of the
  paper; a constant 0.1 is the default of its released code.
"""

import dataclasses

import jax.numpy as jnp
import optax

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run

FORMS = {
  'mu': {'peak': 0.9, 'valley': 0.05, 'rise_steps': 0, 'fall_steps': 200},
  'constant': {'share': 0.1},
  'phi': {'share': 0.1},
}


def share_by_step(*, share=0.1, **schedule):
  """μ as a function of the step: constant, or a rise and a cosine's fall."""
  peak, valley = schedule.get('peak', 1.0), schedule.get('valley', 0.0)
  if not (0 < share <= 1 and 0 < peak <= 1 and 0 <= valley <= 1):
    raise ValueError(
      f'{share=}, {peak=} and {valley=} are shares of imitation: wanted 0 to '
      '1, and above 0 but for valley. For no imitation use --recipe=grpo, for '
      'imitation alone --recipe=supervised.'
    )
  if not schedule:
    return optax.constant_schedule(share)
  rise, fall = schedule['rise_steps'], schedule['fall_steps']
  if rise < 0 or fall < 1 or peak == valley:
    raise ValueError(
      f'From {peak=} to {valley=} with rise_steps={rise} and fall_steps={fall} '
      'is no schedule: use two shares, at least 1 step to fall and 0 to rise, '
      'or --set form=constant.'
    )
  falling = optax.cosine_decay_schedule(peak, fall, alpha=valley / peak)
  if not rise:
    return falling
  rising = optax.linear_schedule(0.0, peak, rise)
  return optax.join_schedules([rising, falling], [rise])


def credit_shared(share):
  """GRPO among the sampled members; in `factor` the share of each token's loss.

  Args:
    share: μ by the number of the step.
  """

  def credit(trajectory, turns):
    returns = recipe_lib.scores(turns)
    own = ~recipe_lib.are_demonstrations(trajectory, turns)
    relative = advantages.standardise(
      returns, turns.group, num_groups=returns.size, where=own
    )
    found = recipe_lib.credit_episodes(relative, trajectory, turns)
    step = recipe_lib.batch_step(trajectory).astype(returns.dtype)
    mu = jnp.asarray(share(step), returns.dtype)
    factor = jnp.where(recipe_lib.demonstrated(trajectory), mu, 1 - mu)
    factor = jnp.where(trajectory.action_mask, factor, 0)
    return found._replace(factor=factor)

  return credit


def imitate_beside(policy, *, spare):
  """Two terms: of what was sampled, and of what was demonstrated.

  Args:
    policy: the loss of sampled tokens.
    spare: whether demonstrated tokens count by π (1 - π).
  """

  def loss(outputs, trajectory, credit):
    theirs = recipe_lib.demonstrated(trajectory)
    weight = theirs.astype(outputs.logprobs.dtype)
    if spare:
      weight = losses.uncertainty_weight(outputs.logprobs, theirs)
    imitation = losses.weighted_logprob(outputs.logprobs, weight)
    ours = trajectory._replace(action_mask=recipe_lib.sampled(trajectory))
    own = policy(outputs, ours, credit)['policy']
    return {
      'policy': credit.factor * own,
      'imitation': credit.factor * imitation,
    }

  return loss


def measure_share(measure):
  """Logs μ too."""

  def measured(outputs, trajectory, credit):
    theirs = recipe_lib.demonstrated(trajectory)
    mu = jnp.where(theirs, credit.factor, 1 - credit.factor)
    return measure(outputs, trajectory, credit) | {'imitation_share': mu}

  return measured


def weigh(trajectory, turns):
  """Each term is a mean over its own tokens."""
  del turns
  return {
    'policy': losses.token_weights(recipe_lib.sampled(trajectory)),
    'imitation': losses.token_weights(recipe_lib.demonstrated(trajectory)),
  }


def recipe(
  *,
  form: str = 'mu',
  group_size: int = 8,
  demonstrations: int = 1,
  peak: float | None = None,
  valley: float | None = None,
  rise_steps: int | None = None,
  fall_steps: int | None = None,
  share: float | None = None,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """GRPO and imitation, weighed against each other.

  Args:
    form: mu, a share of imitation that falls; constant, one that stays; or
      phi, one that stays, with tokens weighed by π (1 - π).
    group_size: episodes of a task, demonstrations included.
    demonstrations: how many of them are demonstrations; at least 1.
    peak: of mu, the largest share; by default 0.9.
    valley: of mu, the share in the end; by default 0.05.
    rise_steps: of mu, steps from 0 to the peak; by default 0.
    fall_steps: of mu, steps from the peak to the valley; by default 200.
    share: of constant and phi, the share of imitation; by default 0.1.
    clip_low: how far the ratio of a sampled token may fall below 1.
    clip_high: how far it may rise above 1.
    **training: see `recipe.training`; nothing else.
  """
  training = recipe_lib.only_training(training)
  recipe_lib.refuse_without_demonstrations(demonstrations)
  chosen = recipe_lib.choose_form(
    FORMS,
    form,
    peak=peak,
    valley=valley,
    rise_steps=rise_steps,
    fall_steps=fall_steps,
    share=share,
  )
  mu = share_by_step(**chosen)
  band = dict(clip_low=clip_low, clip_high=clip_high)
  base = recipe_lib.grpo(group_size=group_size, **band, **training)
  return dataclasses.replace(
    base,
    credit=credit_shared(mu),
    loss=imitate_beside(base.loss, spare=form == 'phi'),
    weigh=weigh,
    measure=measure_share(recipe_lib.measure_clipped_mixture(**band)),
    demonstrations=demonstrations,
  )


if __name__ == '__main__':
  run.page('chord')
