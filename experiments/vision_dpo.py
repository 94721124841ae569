"""V-DPO: preferences of what was seen over what might be guessed.

Paper: V-DPO, 2024, arXiv:2411.02712.
Changes: from dpo, the policy's log-probability of a token is pushed away from
  what the same policy says when the images are blank, so that an answer which
  language alone suggests earns less than one that the image shows.
Command: python experiments/vision_dpo.py --environment=my_world.py:World \\
  --tasks=my_tasks.jsonl --limit=segment_images=4 \\
  --model='mini?image_size=32&patch_size=4&shuffle=2'
Result: not run. On a world of the tests (tests/seeing_world.py:Quarters) it
  trains, two steps were made.
Differences: pairs are the policy's own episodes, of one task and its images;
  pairs that differ in the image alone, of which the paper makes some, are not
  made. What is said without images is scored once a batch, by the policy that
  sampled it. The guidance is added to log-probabilities, as in the paper's
  sequence form; its released script has none (gamma 0), so no strength is
  known to be that of its numbers.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import run


def score(apply, networks, trajectory, turns):
  """The reference's log-probabilities, and the policy's with blank images.

  These are the `teacher_logprobs`: of a teacher to keep away from.
  """
  if trajectory.images is None:
    raise ValueError(
      'vision_dpo compares what is said with and without images, and this '
      'policy sees none; take one that does, such as '
      "--model='mini?image_size=32&patch_size=4&shuffle=2', and a world whose "
      'observations have images, or use --recipe=dpo.'
    )
  blank = trajectory._replace(images=jnp.zeros_like(trajectory.images))
  found = recipe_lib.score_reference(apply, networks, trajectory, turns)
  said = apply(networks.policy, blank)
  return found._replace(teacher_logprobs=said.logprobs)


def recipe(
  *,
  group_size: int = 8,
  beta: float = 0.1,
  guidance: float = 0.5,
  **training,
) -> recipe_lib.Recipe:
  """Direct preference optimisation, guided by images.

  Args:
    group_size: episodes of a task, of which two are compared; at least 2.
    beta: how strongly the reference holds.
    guidance: how far a log-probability is pushed away from that without images;
      0 is dpo.
    **training: see `recipe.training`.
  """
  preferences.logistic(jnp.zeros(1), beta=beta)  # Refused before sampling.
  if guidance < 0:
    raise ValueError(
      f'{guidance=} would pull towards what is said without images; use 0.5, '
      'or 0 for none.'
    )

  def compare(outputs, trajectory, credit, seats):
    del credit
    guided = preferences.guided_logprobs(
      outputs.logprobs, trajectory.teacher_logprobs, guidance=guidance
    )
    rewards = preferences.implicit_rewards(
      guided, trajectory.reference_logprobs
    )
    margins = preferences.margins(seats.sum(rewards))
    return preferences.logistic(margins, beta=beta)

  return dataclasses.replace(
    recipe_lib.preference(compare, group_size=group_size, **training),
    score=score,
  )


if __name__ == '__main__':
  run.page('vision_dpo')
