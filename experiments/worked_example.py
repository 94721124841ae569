"""The credit of one group of episodes under several estimators.

Writes credit.json, from which the report draws the tokens of each episode
coloured by what each estimator gives them. The episodes are a real group,
sampled for `3^17 mod 41` by the policy as it was after imitation, when it
sometimes calls the tool and sometimes guesses; the numbers come from the same
functions that train.
"""

import dataclasses
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.models import transformer
from agentic_jax.tasks import tool_math
from agentic_jax.train import records
from experiments import common
from experiments import dapo
from experiments import dpo
from experiments import gigpo
from experiments import grpo
from experiments import hindsight
from experiments import hiper
from experiments import ppo
from experiments import turn_ppo

_GROUP_SIZE = 8
_CRITIC_TASKS = 48
# Draws far from those of training, whose randomness they must not share.
_FIRST_DRAW = 1_000_000
_VALUE = types.Heads(value=types.ValueHead())


class Estimator(NamedTuple):
  """An estimator, and what it means for the tool call."""

  name: str
  recipe: recipe_lib.Recipe
  sentence: str


def estimators() -> list[Estimator]:
  """The estimators that are shown side by side."""
  return [
    Estimator(
      'GRPO',
      grpo.recipe(),
      'One number for the whole episode, spread over its tokens: the call is '
      'praised or blamed for the answer that came after it, and counts less in '
      'a long episode than in a short one.',
    ),
    Estimator(
      'DAPO',
      dapo.recipe(),
      'The same number as GRPO, but every token counts alike: a long episode '
      'weighs more, so the tokens of a call are not thinned out by it.',
    ),
    Estimator(
      'Token GAE',
      ppo.recipe(),
      'Each token gets what the critic learned from it: credit gathers where '
      'the prospects change, at the decision to call and at the digits that '
      'are copied right or wrong.',
    ),
    Estimator(
      'Turn GAE (StepPO)',
      turn_ppo.recipe(),
      'One number for each turn: the call is judged by how the prospects '
      'changed once its result was seen, apart from the answer.',
    ),
    Estimator(
      'GiGPO',
      gigpo.recipe(),
      'The episode against its group, plus the turn against all turns that '
      'began in the same situation: calling is compared with guessing at the '
      'same prompt, and answering with answering after the same result.',
    ),
    Estimator(
      'HiPER',
      hiper.recipe(),
      'Plans and actions have scales of their own. This policy writes no '
      'plans, so each turn is an action that is judged against the value of '
      'having begun it, with what all later turns brought.',
    ),
    Estimator(
      'Trajectory DPO',
      dpo.recipe(),
      'Only the best and the worst episode of the group speak, all their '
      'tokens alike: the call is liked if the winner made it and disliked if '
      'the loser did, and where both called it cancels.',
    ),
    Estimator(
      'Hindsight distillation',
      hindsight.recipe(),
      'The number of GRPO, plus how much likelier the same policy would have '
      'said a token, had it read first what the environment answered: a call '
      'answered by an error is blamed at the characters that caused it, a good '
      'one may look needless once its result is known.',
    ),
  ]


def write(run: common.Run, params: Any) -> None:
  """Writes credit.json into the run directory.

  Args:
    run: the quickstart's.
    params: of the policy whose episodes are shown.
  """
  group = _mixed_group(run, params)
  if not group:
    print(
      f'No credit.json: the test tasks lack {tool_math.WORKED_EXAMPLE!r}, or '
      'its environment failed.'
    )
    return
  critic = _fit_critic(run, params)
  config = config_lib.TransformerConfig(
    **(vars(run.config) | {'output_heads': _VALUE})
  )
  shape = common.batch_shape(run, 1, _GROUP_SIZE)
  stacked = train.probed(
    hindsight.recipe(), config, critic, group, run.world, shape
  )
  outputs = jax.jit(transformer.outputs, static_argnums=0)
  values = outputs(config, critic, stacked.trajectory).values
  trajectory = stacked.trajectory._replace(values=values)
  found = [_credit(e, trajectory, stacked.turns) for e in estimators()]
  lines = []
  for index, episode in enumerate(group):
    per_token = [
      {
        'credit': {
          e.name: credit[index][segment]
          for e, credit in zip(estimators(), found, strict=True)
        }
      }
      for segment in range(len(episode.segments))
    ]
    pieces = run.world.tokenizer.pieces
    lines.append(records.record(episode, pieces, per_token))
  content = {
    'prompt': tool_math.WORKED_EXAMPLE,
    'note': (
      'A group of episodes sampled after imitation, at temperature 1. A '
      "token's credit is what multiplies its gradient, such as advantage "
      'times weight, in units in which the weights of the group average 1. The '
      'values that some of them need come from a linear critic fitted to the '
      f'returns of {_CRITIC_TASKS * _GROUP_SIZE} episodes of the same policy.'
    ),
    'estimators': [
      {
        'name': e.name,
        'granularity': e.recipe.granularity,
        'sentence': e.sentence,
      }
      for e in estimators()
    ],
    'episodes': lines,
  }
  (run.workdir / 'credit.json').write_text(json.dumps(content))


def _credit(
  estimator: Estimator, trajectory: types.Trajectory, turns: types.Turns
) -> dict[int, list[list[float]]]:
  """How hard the loss pushes each token up, by episode and segment.

  Minus the derivative of the policy's loss by the token's log-probability,
  where the policy still is the one that sampled, which is also the reference.
  Of a policy gradient it is advantage times weight.
  """
  recipe = estimator.recipe
  trajectory = trajectory._replace(
    reference_logprobs=trajectory.sampler_logprobs
  )
  credit = jax.jit(recipe.credit)(trajectory, turns)
  weights = jax.jit(recipe.weigh)(trajectory, turns)['policy']

  def total(logprobs):
    entropy = jnp.zeros_like(logprobs)
    outputs = types.Outputs(logprobs, entropy, trajectory.values)
    terms = recipe.loss(outputs, trajectory, credit)
    return jnp.sum(weights * terms['policy'])

  slope = jax.jit(jax.grad(total))(trajectory.sampler_logprobs)
  scaled = -np.asarray(slope) * np.sum(trajectory.action_mask)
  return records.per_segment(scaled, trajectory.episode, trajectory.segment)


def _play(run, params, requests) -> list[types.Episode]:
  run.sampler.load(params, 0)
  return rollout.collect(
    run.sampler, run.world, requests, temperature=1.0, workers=run.workers
  )


def _mixed_group(run, params) -> list[types.Episode]:
  """A group for the worked example in which some succeed and some fail."""
  tasks = run.splits['test']
  found = [t for t in tasks if t.prompt == tool_math.WORKED_EXAMPLE]
  if not found:
    return []
  (task,) = found[:1]
  group: list[types.Episode] = []
  for attempt in range(20):
    draw = _FIRST_DRAW + attempt
    group = _play(
      run,
      params,
      [rollout.Request(draw, task, member) for member in range(_GROUP_SIZE)],
    )
    if 0 < sum(episode.success for episode in group) < _GROUP_SIZE:
      break
  return [episode for episode in group if not episode.failure]


def _fit_critic(run, params) -> Any:
  """The policy's parameters with a value head fitted to returns.

  Ridge regression of the return of an episode on the hidden state before each
  of its action tokens.
  """
  tasks = run.splits['validation'][:_CRITIC_TASKS]
  played = _play(
    run,
    params,
    [
      rollout.Request(_FIRST_DRAW + 100 + i, task, member)
      for i, task in enumerate(tasks)
      for member in range(_GROUP_SIZE)
    ],
  )
  shape = common.batch_shape(run, len(tasks), _GROUP_SIZE)
  trajectory = batching.stack(played, shape).trajectory
  hidden = np.asarray(_hidden(run.config, params, trajectory))
  before = np.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
  mask = trajectory.action_mask
  features = before[mask].astype(np.float64)
  returns = np.asarray([episode.reward for episode in played])
  targets = returns[trajectory.episode[mask]]
  gram = features.T @ features + len(features) * 1e-3 * np.eye(hidden.shape[-1])
  head = np.linalg.solve(gram, features.T @ targets)
  read = jnp.asarray(head, hidden.dtype)[:, None, None]
  return {**params, 'heads': {'value': read}}


def _hidden(config, params, trajectory) -> jax.Array:
  """Hidden states [B, T, D] of a trajectory's tokens."""
  config = dataclasses.replace(config, output_heads=types.Heads())
  model = transformer.Transformer(config)

  def apply(params, tokens, segment, position):
    context = attention.Packed(segment, position)
    return model.apply({'params': heads.strip(params)}, tokens, context)[0]

  return jax.jit(apply)(
    params, trajectory.tokens, trajectory.segment, trajectory.position
  )
