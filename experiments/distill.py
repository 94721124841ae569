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
  The divergence is that of the tokens sampled; those of whole vocabularies are
  in experiments/gkd.py.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import distillation
from agentic_jax import recipe as recipe_lib
from agentic_jax import train
from agentic_jax import types
from experiments import run


def load_teacher(directory: str) -> dict[str, Any]:
  """`teacher` and `teacher_adapters` of a recipe: of a run's last parameters.

  Args:
    directory: of the run; '' is none.
  """
  if not directory:
    return {'teacher': None}
  path = pathlib.Path(directory)
  params = jax.tree.map(jnp.asarray, train.load_params(path))
  return {'teacher': params, 'teacher_adapters': train.lora_of(path)}


def score_teacher(apply, networks, trajectory, turns):
  """Fills in the teacher's log-probabilities; without one, the reference's."""
  del turns
  if networks.teacher is None:
    outputs = apply(networks.reference, trajectory)
  else:
    # It has routers of its own, if any.
    outputs = apply(networks.teacher, trajectory._replace(experts=None))
  return trajectory._replace(teacher_logprobs=outputs.logprobs)


def credit(outcome_weight, teacher_weight):
  """The group's standardised return, and what the teacher says of a token."""
  outcome = recipe_lib.relative(advantages.standardise)

  def add(trajectory, turns):
    found = teacher_weight * distillation.teacher_advantages(
      trajectory.sampler_logprobs,
      trajectory.teacher_logprobs,
      trajectory.action_mask,
    )
    if outcome_weight:
      found += outcome_weight * outcome(trajectory, turns).advantages
    return types.Credit(found)

  return add


def refuse_idle(teacher, outcome_weight, teacher_weight):
  """Refuses weights that leave nothing to learn, or nobody to teach."""
  if not outcome_weight and not teacher:
    raise ValueError(
      f'{outcome_weight=} leaves nothing to learn from but the policy of the '
      'first step; name another teacher, --set teacher=RUN_DIRECTORY, or let '
      'the outcome count.'
    )
  if not teacher_weight:
    raise ValueError(
      f'{teacher_weight=} asks no teacher; use --recipe=grpo instead.'
    )


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
  refuse_idle(teacher, outcome_weight, teacher_weight)
  return dataclasses.replace(
    recipe_lib.reinforce(group_size=group_size, **training),
    credit=credit(outcome_weight, teacher_weight),
    score=score_teacher,
    uses_reference=not teacher,
    granularity='token',
    **load_teacher(teacher),
  )


if __name__ == '__main__':
  run.page('distill')
