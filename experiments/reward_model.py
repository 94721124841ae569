"""Learned rewards: of whole episodes by pairs, or of each turn by its outcome.

The policy only samples. What learns is a trunk of its own with a head on it:
form=outcome says one number of an episode, form=process how likely each turn is
a good one.

Paper: outcome: Training language models to follow instructions with human
  feedback, 2022, arXiv:2203.02155, equation 1. process: Let's Verify Step by
  Step, 2023, arXiv:2305.20050; its labels after Math-Shepherd, 2023,
  arXiv:2312.08935.
Changes: from supervised, the loss is that of a reward head or of a head for the
  classes of steps, on episodes that the policy samples.
Command: python experiments/reward_model.py --environment=tool_math \\
  --model=mini --init_from=runs/quickstart/warm_start \\
  --limit=turns=6 --limit=action_tokens=40 --limit=segment_tokens=127 \\
  --limit=token_price=0.0002 --steps=30 --tasks_per_step=8 \\
  --set learning_rate=1e-3
Result: one seed, 2 busy CPU cores, 3 min of training. form=outcome: of 32 pairs
  of held-out tasks 93.8 % are ordered right after 30 steps (90.6 and 87.5 % of
  validation pairs after 10 and 20), 50 % before, when the head is 0; with
  form=process, without rollouts, 89.1 %. Success of the policy stays at 4.8 %,
  as it must. The papers' numbers are of other data.
Differences: the world's return is the label, where the papers ask people; of a
  group the best episode is compared with the worst. The reward of an episode is
  read after its last action token. A step is a turn; it is good if its episode
  succeeds, or, with rollouts, as far as the mean return of episodes that are
  played on from there, which is what Math-Shepherd's share of solutions is
  where a return is 0 or 1. A policy does not train on these rewards here: they
  are scores of episodes that exist, and a rollout has no place yet that asks
  another network while it is under way.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages
from agentic_jax import batching
from agentic_jax import losses
from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from agentic_jax import report
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax import types
from agentic_jax.rollout import parts
from experiments import common
from experiments import introducing

FORMS: dict[str, dict[str, Any]] = {
  'outcome': {'margin': 0.0, 'centring': 0.0},
  'process': {'rollouts': 0},
}
_HELD_OUT = 32  # Tasks of which groups are played to find pairs.
_FIRST_DRAW = 2_000_000  # Of them; no task of training has it.


def episode_ends(trajectory, turns):
  """The last action token of each episode: bool [B, T]."""
  present = turns.tokens >= 0
  after = jnp.pad(present[:, 1:], ((0, 0), (0, 1)))
  return _laid_out(present & ~after, trajectory, turns)


def turn_ends(trajectory, turns):
  """The last action token of each turn: bool [B, T]."""
  turn = recipe_lib.token_turns(trajectory, turns)
  after = jnp.pad(turn[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
  return _laid_out((turn >= 0) & (turn != after), trajectory, turns)


def _laid_out(chosen, trajectory, turns):
  marked = chosen.astype(turns.rewards.dtype)
  found = recipe_lib.credit_tokens(marked, trajectory, turns).advantages
  return trajectory.action_mask & (found > 0)


def seat_ends(trajectory, turns):
  """Pairs, of which only the last token of each episode has a seat."""
  place = recipe_lib.seat_pairs(trajectory, turns)
  return jnp.where(episode_ends(trajectory, turns), place, -1)


def step_targets(turns):
  """How good each turn was: float [E, S], in [0, 1].

  Whether the episode succeeded; where rollouts valued the situation after the
  turn, their mean return.
  """
  success = recipe_lib.successes(turns).astype(turns.rewards.dtype)[:, None]
  if turns.value is None:
    return jnp.where(turns.mask, success, 0)
  follows = jnp.pad(turns.mask[:, 1:], ((0, 0), (0, 1)))
  later = jnp.pad(turns.value[:, 1:], ((0, 0), (0, 1)))
  found = jnp.where(follows, jnp.clip(later, 0, 1), success)
  return jnp.where(turns.mask, found, 0)


def recipe(
  *,
  form: str = 'outcome',
  group_size: int = 8,
  margin: float | None = None,
  centring: float | None = None,
  rollouts: int | None = None,
  **training,
) -> recipe_lib.Recipe:
  """A reward model beside a policy that stays as it is.

  Args:
    form: outcome is one reward of an episode, learnt from pairs; process one
      of each turn, learnt from labels.
    group_size: episodes of a task; at least 2.
    margin: of outcome, by how much the better episode is to be ahead; by
      default 0.
    centring: of outcome, the coefficient that holds rewards near 0; by default
      0, 0.01 where it is used.
    rollouts: of process, from each turn of each episode, for the label of the
      turn before; by default 0, none: all turns have that of the episode.
    **training: see `recipe.training`; no weight decay.

  Raises:
    ValueError: a setting plays no part in the form, or the policy would not
      stay as it is.
  """
  chosen = recipe_lib.choose_form(
    FORMS, form, margin=margin, centring=centring, rollouts=rollouts
  )
  if training.get('weight_decay'):
    raise ValueError(
      f'weight_decay={training["weight_decay"]} would shrink the policy that '
      'samples, which learns nothing here; use --set weight_decay=0.'
    )
  if form == 'outcome':
    return _outcome(group_size, training, **chosen)
  return _process(group_size, training, **chosen)


def _outcome(group_size, training, *, margin, centring):
  def compare(outputs, trajectory, credit, seats):
    del trajectory, credit
    chosen, rejected = preferences.split_pairs(seats.sum(outputs.rewards))
    return preferences.bradley_terry(
      chosen, rejected, margin=margin, centring=centring
    )

  base = recipe_lib.preference(
    compare,
    seat=seat_ends,
    group_size=group_size,
    uses_reference=False,
    **training,
  )
  heads = types.Heads(reward=True, separate=True)
  return dataclasses.replace(base, heads=heads)


def _process(group_size, training, *, rollouts):
  recipe_lib.refuse_single(group_size)
  if rollouts < 0:
    raise ValueError(f'{rollouts=} must not be negative; 0 is none.')

  def credit(trajectory, turns):
    found = recipe_lib.credit_turns(step_targets(turns), trajectory, turns)
    return types.Credit(
      jnp.zeros_like(found.advantages),
      returns=found.advantages,
      value_mask=turn_ends(trajectory, turns),
    )

  def loss(outputs, trajectory, credit):
    del trajectory
    good = credit.returns
    targets = jnp.stack([1 - good, good], axis=-1)
    return {
      'policy': preferences.step_target_loss(
        outputs.step_logits, targets, credit.value_mask
      )
    }

  def weigh(trajectory, turns):
    return {'policy': losses.token_weights(turn_ends(trajectory, turns))}

  return dataclasses.replace(
    recipe_lib.supervised(**training),
    credit=credit,
    loss=loss,
    weigh=weigh,
    group_size=group_size,
    branch=recipe_lib.Probes(rollouts=rollouts) if rollouts else None,
    heads=types.Heads(step_classes=2, separate=True),
    uses_sampler=True,
    granularity='turn',
  )


def score_episodes(rewards, step_logits, trajectory, turns) -> jax.Array:
  """What the model thinks of each episode: float [E].

  Args:
    rewards: float [B, T] of `types.Outputs`, read after the last action token.
    step_logits: float [B, T, 2], of which it is the score of the weakest turn;
      not looked at where there are rewards.
    trajectory: of the batch.
    turns: of the batch.
  """
  if rewards is not None:
    ends = episode_ends(trajectory, turns)
    said = jnp.where(ends, rewards, 0)
    own = advantages.gather_tokens(said, turns.tokens)
    return jnp.sum(jnp.where(turns.tokens >= 0, own, 0), axis=-1)
  ends = turn_ends(trajectory, turns)
  scores = preferences.step_scores(step_logits, ends)
  own = advantages.gather_tokens(scores, turns.tokens)
  ends = advantages.gather_tokens(ends, turns.tokens, fill=False)
  return preferences.weakest_step(own, ends)


def pair_accuracy(scores: np.ndarray, turns: types.Turns) -> tuple[float, int]:
  """How often the best episode of a group scores above its worst; of how many.

  An equal score counts half. Without a pair it is 0.5.
  """
  place = np.asarray(
    preferences.pair_places(
      recipe_lib.scores(turns),
      jnp.asarray(turns.group),
      num_groups=turns.group.size,
      where=jnp.any(turns.tokens >= 0, axis=1),
    )
  )
  taken = place >= 0
  said = np.zeros(2 * place.size)
  said[place[taken]] = scores[taken]
  pairs = np.unique(place[taken] // 2)
  chosen, rejected = said[2 * pairs], said[2 * pairs + 1]
  right = (chosen > rejected) + 0.5 * (chosen == rejected)
  return (float(np.mean(right)) if len(pairs) else 0.5), len(pairs)


def held_out(run: common.Run, params, split: str) -> dict[str, float]:
  """The accuracy of the model on pairs of a split, sampled for it."""
  size, tasks = run.recipe.group_size, run.splits[split][:_HELD_OUT]
  requests = [
    rollout.Request(_FIRST_DRAW + i, task, member)
    for i, task in enumerate(tasks)
    for member in range(size)
  ]
  played = rollout.collect(
    run.sampler,
    run.world,
    requests,
    temperature=run.recipe.sampling.temperature,
    workers=run.workers,
  )
  # Of several agents each is compared with others in its own place.
  played = parts.of_all(played, run.world.agents)
  shape = common.batch_shape(run, len(tasks), size)
  trajectory, turns, _ = batching.stack(played, shape)
  read = _compiled(run.config)
  rows = shape.microbatch_rows
  pieces = [
    read(params, jax.tree.map(lambda x, at=at: x[at : at + rows], trajectory))
    for at in range(0, shape.rows, rows)
  ]
  rewards, logits = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
  scores = score_episodes(rewards, logits, trajectory, turns)
  accuracy, pairs = pair_accuracy(np.asarray(scores), turns)
  name = 'evaluate' if split == 'test' else split
  return {f'{name}/pair_accuracy': accuracy, f'{name}/pairs': float(pairs)}


@functools.cache
def _compiled(config):
  """`_rewards` of a policy, compiled once a run."""
  return jax.jit(functools.partial(_rewards, train.apply_of(config)))


def _rewards(apply, params, trajectory):
  found = apply(params, trajectory)
  return found.rewards, found.step_logits


def main() -> None:
  """Trains, and writes the report."""
  run = common.build()
  introducing.introduce(run)
  steps = common.FLAGS.steps
  greedy = common.evaluator(run, steps)

  def play(step, params, report_progress):
    # It loads the parameters.
    record, played = greedy(step, params, report_progress)
    split = 'test' if step in (0, steps) else 'validation'
    return record | held_out(run, params, split), played

  result = common.train_run(run, evaluate=play)
  common.finish(run, result)
  page = report.write(run.workdir)
  print(f'The report: {page}')


if __name__ == '__main__':
  common.define_defaults(recipe='reward_model', workdir='runs/reward_model')
  common.main(main)
