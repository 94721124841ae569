"""Imitation: the likelihood of demonstrated actions, or of answers.

Paper: Training language models to follow instructions with human feedback,
  2022, arXiv:2203.02155, section 3.5 (its first step).
Changes: from reinforce, the actions are those of the environment's oracle, or
  the answers of the tasks, and all of them are right.
Command: python experiments/supervised.py --environment=corridor
Result: not run; the quickstart begins with it (BUILD_NOTES.md, Results).
Differences: the loss is a mean over the tokens of a batch. Attributes in the
  prompts of tasks make it SteerLM.
"""

from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(**training) -> recipe_lib.Recipe:
  """Maximum likelihood of the action tokens, whoever chose them.

  Args:
    **training: see `recipe.training`.
  """
  return recipe_lib.supervised(**training)


if __name__ == '__main__':
  run.page('supervised')
