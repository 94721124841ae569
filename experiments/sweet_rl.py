"""SWEET-RL: a critic that knows the solution tells good turns from bad ones.

As a script it has two stages. First an advantage model learns, from pairs of
episodes that the policy sampled before any training, what a turn is worth; it
is told what the world keeps from the policy. Then the policy learns from pairs
of turns, ordered by that model, without being told.

Paper: SWEET-RL, 2025, arXiv:2503.15478.
Changes: from dpo, turns are compared instead of episodes, and by a learned
  critic instead of the return. The critic is dpo itself, of rows that begin
  with the truth, with the mean over each turn's tokens in place of the sum.
Command: python experiments/sweet_rl.py --environment=tool_math \\
  --model=mini --init_from=runs/quickstart/warm_start \\
  --limit=turns=6 --limit=action_tokens=40 --limit=segment_tokens=127 \\
  --limit=token_price=0.0002 --steps=20 --set learning_rate=2e-4
Result: not run.
Differences: the paper samples 16 candidates for every turn; here the candidates
  of a turn are those of the group's episodes that began in one situation, all
  first turns among them, and only the best and the worst are compared, where
  the paper takes from the upper and the lower half. The truth is what the world
  calls `privileged` as an episode begins, in a message before its first action;
  the paper's is a reference solution. Both stages have --steps batches. Without
  an advantage model (--recipe=sweet_rl elsewhere, no judge) turns are ordered
  by the return that followed them.
"""

import dataclasses
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages
from agentic_jax import preferences
from agentic_jax import probes
from agentic_jax import recipe as recipe_lib
from agentic_jax import train
from agentic_jax import types
from experiments import common
from experiments import distill
from experiments import dpo
from experiments import hindsight
from experiments import introducing
from experiments import run
from experiments import run_config

_TRUTH_TOKENS = 64  # Of the message that tells it; a longer one is shortened.


def message(episode, world) -> list[int]:
  """What the world kept from the policy as an episode began, as tokens."""
  truth = hindsight.truth(episode, world)[0]
  return probes.shorten(world.tokenizer.observation(truth), _TRUTH_TOKENS)


def tell(segment: types.Segment, words: list[int]) -> types.Segment:
  """The segment with a message before its first action.

  What was recorded of its sampling, such as experts, is left out: the tokens
  stand in another context now.
  """
  first = int(np.argmax(segment.action_mask))
  here = np.full(len(words), first)
  elsewhere = types.Segment(
    tokens=np.array(words),
    action_mask=np.array(False),
    turn=np.array(-1),
    role=np.array(0),
    policy_step=np.array(-1),
    sampler_logprobs=np.array(0.0),
    temperature=np.array(1.0),
  )
  told = {
    name: np.insert(getattr(segment, name), here, value)
    for name, value in elsewhere._asdict().items()
    if value is not None
  }
  return types.Segment(**told)


class Told:
  """A source whose episodes always the same policy samples, then told."""

  def __init__(self, source: train.Source, params, world):
    self._source, self._params, self._world = source, params, world

  def batch(self, step: int, params):
    """Episodes of the first policy; `params` are those of what learns."""
    del params
    found = self._source.batch(step, self._params)
    return found._replace(episodes=[self._tell(e) for e in found.episodes])

  def position(self):
    """See `train.Source`."""
    return self._source.position()

  def restore(self, position):
    """See `train.Source`."""
    self._source.restore(position)

  def _tell(self, episode):
    if episode.failure:
      return episode
    words = message(episode, self._world)
    told = tuple(tell(segment, words) for segment in episode.segments)
    return episode._replace(segments=told)


def advantage_model(*, group_size: int, **training) -> recipe_lib.Recipe:
  """Pairs of episodes by the sums of what their turns are worth.

    -log σ( Σ_k A_k of the better one - Σ_k A_k of the worse one )

  Args:
    group_size: episodes of a task, of which two are compared.
    **training: see `recipe.training`.
  """

  def compare(outputs, trajectory, credit, seats):
    rewards = dpo.implicit_rewards(outputs, trajectory)
    found = seats.sum(credit.factor * rewards)
    return preferences.logistic(preferences.margins(found), beta=1.0)

  base = recipe_lib.preference(compare, group_size=group_size, **training)

  def credit(trajectory, turns):
    turn = recipe_lib.token_turns(trajectory, turns)
    lengths = advantages.turn_sum(
      jnp.ones(turn.shape, jnp.float32), turn, num_turns=turns.mask.shape[1]
    )
    share = recipe_lib.credit_turns(
      1 / jnp.maximum(lengths, 1), trajectory, turns
    )
    return base.credit(trajectory, turns)._replace(factor=share.advantages)

  return dataclasses.replace(base, credit=credit, granularity='turn')


def probing() -> recipe_lib.Probing:
  """Asks critic and reference for each action again, told the truth."""

  def ask(episode, world):
    words = message(episode, world)
    asked = []
    for number, segment in enumerate(episode.segments):
      own = segment.temperature[segment.action_mask]
      if own.size:
        told = tell(segment, words)
        probe = probes.Probe(
          told.tokens, told.action_mask, number, float(own[0])
        )
        asked += [
          probe._replace(network=name) for name in ('teacher', 'reference')
        ]
    return asked

  def absorb(episode, asked, logprobs):
    segments = [
      s._replace(teacher_logprobs=np.zeros(len(s.tokens), np.float32))
      for s in episode.segments
    ]
    for probe, found in zip(asked, logprobs):
      segment = segments[probe.turn]
      sign = 1 if probe.network == 'teacher' else -1
      segment.teacher_logprobs[segment.action_mask] += sign * found
    return episode._replace(segments=tuple(segments))

  return recipe_lib.Probing(
    ask,
    absorb,
    extra_tokens=_TRUTH_TOKENS,
    fills=('teacher_logprobs',),
    refuse=hindsight.refuse_untold,
  )


def learned(trajectory, turns):
  """What the advantage model says of each turn: float [E, S].

  `teacher_logprobs` are how much likelier it is to say a token than the
  reference, both told.
  """
  gap = advantages.gather_tokens(trajectory.teacher_logprobs, turns.tokens)
  return preferences.turn_advantages(
    gap,
    jnp.zeros_like(gap),
    recipe_lib.token_turns(trajectory, turns),
    num_turns=turns.mask.shape[1],
  )


def earned(trajectory, turns):
  """The return from each turn on: float [E, S]."""
  del trajectory
  return advantages.discounted_returns(
    recipe_lib.turn_rewards(turns), turns.mask, discount=1.0
  )


def seat_turns(worth):
  """The best turn that began in a situation against the worst."""

  def seat(trajectory, turns):
    turn = recipe_lib.token_turns(trajectory, turns)
    lengths = advantages.turn_sum(
      jnp.ones(turn.shape, jnp.float32), turn, num_turns=turns.mask.shape[1]
    )
    cells = advantages.situations(turns.state, turns.mask, turns.group)
    place = preferences.pair_places(
      worth(trajectory, turns).ravel(),
      cells.ravel(),
      num_groups=cells.size,
      where=(turns.mask & (lengths > 0)).ravel(),
    ).reshape(cells.shape)
    own = jnp.take_along_axis(place, jnp.maximum(turn, 0), axis=1)
    taken = jnp.where(turn >= 0, own + 1, 0)
    shape = trajectory.tokens.shape
    found = advantages.scatter_tokens(taken, turns.tokens, shape=shape)
    return jnp.where(trajectory.action_mask, found - 1, -1).astype(jnp.int32)

  return seat


def recipe(
  *,
  judge: str = '',
  group_size: int = 8,
  beta: float = 0.1,
  **training,
) -> recipe_lib.Recipe:
  """Direct preference optimisation of turns, ordered by an advantage model.

  Args:
    judge: run directory of the advantage model; '' orders turns by the return
      that followed them.
    group_size: episodes of a task, whose turns are compared; at least 2.
    beta: how strongly the reference holds.
    **training: see `recipe.training`.
  """
  worth = learned if judge else earned
  seat = seat_turns(worth)

  def credit(trajectory, turns):
    place = seat(trajectory, turns)
    chosen = jnp.where(place % 2 == 0, 1.0, -1.0)
    return types.Credit(jnp.where(place >= 0, chosen, 0.0), place=place)

  return dataclasses.replace(
    recipe_lib.preference(
      dpo.compare('dpo', beta=beta, score='sum'),
      seat=seat,
      group_size=group_size,
      **training,
    ),
    credit=credit,
    probe=probing() if judge else None,
    granularity='turn',
    **distill.load_teacher(judge),
  )


def train_advantage_model(planned: common.Run) -> pathlib.Path:
  """The first stage, as a run of its own; returns its directory."""
  known = inspect.signature(recipe_lib.training).parameters
  settings = {k: v for k, v in planned.settings.items() if k in known}
  made = advantage_model(group_size=planned.recipe.group_size, **settings)
  first = planned._replace(
    workdir=planned.workdir / 'advantage_model', recipe=made
  )
  limits = planned.world.limits
  longer = limits._replace(segment_tokens=limits.segment_tokens + _TRUTH_TOKENS)
  wide = first._replace(world=planned.world._replace(limits=longer))
  tasks, steps = common.FLAGS.tasks_per_step, common.FLAGS.steps
  state = common.initial_state(first)
  # A copy: the updates reuse the memory of the state.
  params = jax.tree.map(np.asarray, state.policy)
  source = Told(common.source(first, tasks), params, planned.world)
  plan = train.Plan(
    config=first.config,
    shape=common.batch_shape(wide, tasks, made.group_size),
    mesh=first.mesh,
    workdir=first.workdir,
    steps=steps,
    pieces=planned.world.tokenizer.pieces,
    what='advantage model',
    checkpoint_every=common.FLAGS.checkpoint_every,
  )
  described = run_config.settings_of(first)
  resume = common.FLAGS.resume == 'auto'
  train.open_run(first.workdir, described, resume=resume)
  train.run(made, source, plan, state)
  return first.workdir


def main() -> None:
  """Trains the advantage model unless one is named, and then the policy."""
  planned = common.build()
  introducing.introduce(planned)
  if not planned.settings.get('judge'):
    judge = train_advantage_model(planned)
    planned = common.build(judge=str(judge))
  run.complete(planned)


if __name__ == '__main__':
  common.define_defaults(recipe='sweet_rl', workdir='runs/sweet_rl')
  common.main(main)
