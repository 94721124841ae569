"""On-policy distillation: the policy's own tokens, judged by a teacher.

Paper: On-Policy Distillation, 2025, thinkingmachines.ai/blog (no arXiv id);
  after GKD, 2023, arXiv:2306.13649, and MiniLLM, 2023, arXiv:2306.08543.
Changes: from reinforce, the advantage of a token is how much likelier the
  teacher would have said it, token by token, without return-to-go; the outcome
  may be added, as a group's standardised return.
Command: python experiments/distill.py --environment=corridor
  --set teacher=runs/run --set outcome_weight=0
Result: not run.
Differences: by default the outcome counts too, as in hindsight-guided
  distillation: without --set teacher=RUN_DIRECTORY the teacher is the policy's
  own beginning, and alone would hold it there; with one, the paper's is --set
  outcome_weight=0. The teacher is of the policy's size and sees what it saw.
  The divergence is that of the tokens sampled, not of vocabularies: GKD's
  (distillation.jensen_shannon) want the logits.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import distillation
from agentic_jax import recipe as recipe_lib
from agentic_jax import train
from agentic_jax import types
from experiments import run


def score_teacher(params):
  """A `score` that fills in the teacher's log-probabilities.

  Args:
    params: of the teacher; None takes the reference.
  """

  def score(apply, networks, trajectory, turns):
    del turns
    found = params
    if found is None:
      found = networks.reference
    outputs = apply(_fitting(found, networks.policy), trajectory)
    return trajectory._replace(teacher_logprobs=outputs.logprobs)

  return score


def _fitting(teacher, policy):
  """The teacher's parameters, without a value head that the policy lacks."""
  teacher = {k: v for k, v in teacher.items() if k in policy}
  shapes = [jax.tree.map(jnp.shape, tree) for tree in (teacher, dict(policy))]
  if shapes[0] != shapes[1]:
    raise ValueError(
      'The teacher is not of the size of the policy; use the --model that it '
      'was trained with, or another --set teacher=RUN_DIRECTORY.'
    )
  return teacher


def recipe(
  *,
  teacher: str = '',
  group_size: int = 8,
  outcome_weight: float = 1.0,
  teacher_weight: float = 1.0,
  **training,
) -> recipe_lib.Recipe:
  """Distillation on the policy's own episodes.

  Args:
    teacher: run directory whose last parameters teach; '' takes the frozen
      initial policy, which holds the policy where it began.
    group_size: episodes of a task; at least 2 if the outcome counts.
    outcome_weight: of the standardised return; 0 is none.
    teacher_weight: of the teacher's advantage.
    **training: see `recipe.training`.
  """
  if outcome_weight:
    recipe_lib.refuse_single(group_size)
  elif not teacher:
    raise ValueError(
      f'{outcome_weight=} leaves nothing to learn from but the policy of the '
      'first step; name another teacher, --set teacher=RUN_DIRECTORY, or let '
      'the outcome count.'
    )
  if not teacher_weight:
    raise ValueError(
      f'{teacher_weight=} asks no teacher; use --recipe=grpo instead.'
    )
  params = None
  if teacher:
    params = train.load_params(pathlib.Path(teacher))
    params = jax.tree.map(jnp.asarray, params)
  outcome = recipe_lib.relative(advantages.standardise)

  def credit(trajectory, turns):
    found = teacher_weight * distillation.teacher_advantages(
      trajectory.sampler_logprobs,
      trajectory.teacher_logprobs,
      trajectory.action_mask,
    )
    if outcome_weight:
      found += outcome_weight * outcome(trajectory, turns).advantages
    return types.Credit(found)

  return dataclasses.replace(
    recipe_lib.reinforce(group_size=group_size, **training),
    credit=credit,
    score=score_teacher(params),
    uses_reference=params is None,
    granularity='token',
  )


if __name__ == '__main__':
  run.page('distill')
