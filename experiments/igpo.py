"""IGPO: a turn is paid for what it told the policy about the right answer.

Paper: Information Gain-based Policy Optimization, 2025, arXiv:2510.14967; with
  logarithms and apart from the outcome as in DR-Venus, 2026.
Changes: from grpo, a turn is rewarded by how much likelier it made the right
  answer, which the policy that sampled is asked before each turn; a token's
  advantage is what its turn and all later ones earned.
Command: python experiments/igpo.py --environment=tool_math --set discount=0.9
Result: not run.
Differences: defaults are those of DR-Venus; the paper's are --set
  form=probability --set joint=true. The answer is asked in the grammar's
  answer tags, without the sentence that the paper puts before it. As in the
  paper, the last turn gets the outcome alone: no history follows it. Gains are
  those of the policy that sampled the batch, and the outcome is all that the
  world pays. The discount was not looked up.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages
from agentic_jax import probes
from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import run

# Of the mean log-probability of the answer's tokens: what is compared.
FORMS = {'logprob': lambda x: x, 'probability': np.exp}


def answer(world, text):
  """The answer as an action: ids, and which of them are of its text."""
  opening = f'<{world.grammar.answer}>'
  said = world.grammar.render(protocol.Action(answer=text))
  ids = world.tokenizer.action(said)
  stops = np.cumsum([len(piece) for piece in world.tokenizer.pieces(ids)])
  starts = np.concatenate([[0], stops[:-1]])
  end = len(opening.encode()) + len(text.encode())
  return ids, (stops > len(opening.encode())) & (starts < end)


def probing(form, answer_tokens) -> recipe_lib.Probing:
  """Asks for the right answer before each turn, and pays what it gained."""

  def ask(episode, world):
    if not episode.task.answer:
      raise ValueError(
        f'The task {episode.task.prompt!r:.80} has no answer to ask for; use '
        'tasks with one, or another recipe, such as --recipe=grpo.'
      )
    ids, asked = answer(world, episode.task.answer)
    ids, asked = ids[:answer_tokens], asked[:answer_tokens]
    if not asked.any():
      raise ValueError(
        f'{answer_tokens=} ends before the answer begins; raise it by --set.'
      )
    return [
      probes.make(probes.history(episode, place), ids, turn=turn, asked=asked)
      for turn, place in enumerate(probes.places(episode))
      if place is not None
    ]

  def absorb(episode, asked, logprobs):
    if any('process' in turn.reward for turn in episode.turns):
      raise ValueError(
        'This world pays rewards of the component "process" itself, where '
        'information gains are to stand; take a world without them, or '
        'another recipe, such as --recipe=turn_grpo.'
      )
    known = {p.turn: FORMS[form](x.mean()) for p, x in zip(asked, logprobs)}
    turns = list(episode.turns)
    for turn in known.keys() & {later - 1 for later in known}:
      gain = float(known[turn + 1] - known[turn])
      paid = {**turns[turn].reward, 'process': gain}
      turns[turn] = turns[turn]._replace(reward=paid)
    return episode._replace(turns=tuple(turns))

  return recipe_lib.Probing(ask, absorb, extra_tokens=answer_tokens)


def turn_credit(turns: types.Turns, *, gain_weight, discount, joint):
  """What each turn and those after it earned, standardised: float [E, S]."""
  gains = recipe_lib.component_rewards(turns, 'process')
  outcome = recipe_lib.scores(turns) - jnp.sum(gains, axis=-1)
  last = turns.mask & ~jnp.pad(turns.mask[:, 1:], ((0, 0), (0, 1)))
  rewards = jnp.where(last, outcome[:, None], gains)
  group = jnp.broadcast_to(turns.group[:, None], gains.shape).ravel()

  def standardise(where):
    found = advantages.standardise(
      rewards.ravel(), group, num_groups=turns.group.size, where=where.ravel()
    )
    return found.reshape(gains.shape)

  before = turns.mask & ~last
  if joint:
    found = standardise(turns.mask)
  else:
    found = standardise(before) + standardise(last)
  found = jnp.where(last, found, gain_weight * found)
  return advantages.discounted_returns(found, turns.mask, discount=discount)


def recipe(
  *,
  group_size: int = 8,
  form: str = 'logprob',
  joint: bool = False,
  gain_weight: float = 1.0,
  discount: float = 1.0,
  answer_tokens: int = 32,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.0,
  **training,
) -> recipe_lib.Recipe:
  """Information gain as the reward of a turn.

  Args:
    group_size: episodes of a task; at least 2.
    form: logprob or probability, of the answer's tokens' geometric mean.
    joint: standardise gains and outcomes together instead of apart.
    gain_weight: of the standardised gains; not 0.
    discount: of what later turns earn, per turn.
    answer_tokens: of the answer in its tags; what is longer is cut.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_unknown('form', form, FORMS)
  if not gain_weight:
    raise ValueError(f'{gain_weight=} asks for nothing; use --recipe=grpo.')
  base = recipe_lib.grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )

  def credit(trajectory, turns):
    found = turn_credit(
      turns, gain_weight=gain_weight, discount=discount, joint=joint
    )
    return recipe_lib.credit_turns(found, trajectory, turns)

  return dataclasses.replace(
    base,
    credit=credit,
    probe=probing(form, answer_tokens),
    granularity='turn',
  )


if __name__ == '__main__':
  run.page('igpo')
