"""GKD: the policy's own episodes, judged by a teacher over the vocabulary.

One page for divergences that differ only in their terms, --set
form=jensen_shannon, forward, reverse, top_forward or top_reverse.

Paper: On-Policy Distillation of Language Models (GKD), 2023, arXiv:2306.13649.
  Forms: forward 1503.02531, reverse MiniLLM 2306.08543; the teacher's likeliest
  tokens as in verl, with a tail as in OpenClaw-RL (code).
Changes: from grpo, a further term is the divergence from the teacher of each
  token's whole distribution; the outcome counts as much as --set says.
Command: python experiments/gkd.py --environment=corridor
  --set teacher=runs/run --set outcome_weight=0
Result: not run.
Differences: all episodes are the policy's own; the paper plays half of them by
  a fixed data set. By default the outcome counts too, and the teacher is the
  policy's own beginning, towards which a divergence of weight 1 holds it.
  MiniLLM's reverse divergence is of sequences, with a return-to-go. The teacher
  is of the policy's size and sees what it saw.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from agentic_jax import distillation
from agentic_jax import recipe as recipe_lib
from experiments import distill
from experiments import run


def over_top(divergence):
  """A divergence over the teacher's likeliest tokens, from one of lists."""

  def found(logits, teacher_logits, mask, *, count):
    top = distillation.top_tokens(teacher_logits, count=count)
    own = distillation.token_logprobs(logits, top.tokens)
    return divergence(own, top.logprobs, mask)

  return found


FUNCTIONS = {
  'jensen_shannon': distillation.jensen_shannon,
  'forward': distillation.forward_kl,
  'reverse': distillation.reverse_kl,
  'top_forward': over_top(distillation.truncated_forward_kl),
  'top_reverse': over_top(distillation.tailed_reverse_kl),
}
FORMS: dict[str, dict[str, Any]] = {
  'jensen_shannon': {'beta': 0.5},
  'forward': {},
  'reverse': {},
  'top_forward': {'count': 50},
  'top_reverse': {'count': 50},
}


def recipe(
  *,
  teacher: str = '',
  form: str = 'jensen_shannon',
  beta: float | None = None,
  count: int | None = None,
  group_size: int = 8,
  outcome_weight: float = 1.0,
  teacher_weight: float = 1.0,
  temperature: float = 0.9,
  **training,
) -> recipe_lib.Recipe:
  """Distillation over the vocabulary, on the policy's own episodes.

  Args:
    teacher: run directory whose last parameters teach; '' takes the frozen
      initial policy, which holds the policy where it began.
    form: jensen_shannon, forward, reverse, top_forward or top_reverse.
    beta: the teacher's part of the mixture of jensen_shannon; by default 0.5.
    count: how many of the teacher's likeliest tokens the forms with top look
      at; by default 50.
    group_size: episodes of a task; at least 2.
    outcome_weight: of the clipped surrogate of the return; 0 is none.
    teacher_weight: of the divergence.
    temperature: of sampling, and of both distributions.
    **training: see `recipe.training`; nothing else.
  """
  training = recipe_lib.only_training(training)
  chosen = recipe_lib.choose_form(FORMS, form, beta=beta, count=count)
  distill.refuse_idle(teacher, outcome_weight, teacher_weight)
  divergence = functools.partial(FUNCTIONS[form], **chosen)
  some = jnp.zeros((1, max(chosen.get('count', 2), 2)))
  divergence(some, some, jnp.ones(1, bool))  # Refuses what is out of range.
  base = recipe_lib.grpo(
    group_size=group_size,
    temperature=temperature,
    **training,
  )

  def vocabulary(chunk):
    found = divergence(chunk.logits, chunk.teacher_logits, chunk.mask)
    return {'divergence': found}

  def loss(outputs, trajectory, credit):
    found = outputs.vocabulary['divergence']
    terms = {'teacher': teacher_weight * found}
    if outcome_weight:
      policy = base.loss(outputs, trajectory, credit)['policy']
      terms['policy'] = outcome_weight * policy
    return terms

  def measure(outputs, trajectory, credit):
    more = base.measure(outputs, trajectory, credit) if outcome_weight else {}
    return {**more, 'teacher_divergence': outputs.vocabulary['divergence']}

  names = ['teacher', 'policy'] if outcome_weight else ['teacher']
  return dataclasses.replace(
    base,
    loss=loss,
    measure=measure,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, *names),
    vocabulary=vocabulary,
    uses_reference=not teacher,
    granularity='token',
    **distill.load_teacher(teacher),
  )


if __name__ == '__main__':
  run.page('gkd')
