"""Hindsight-guided distillation: the policy, told what came of it, teaches.

Paper: OpenClaw-RL, 2026, Gen-Verse/OpenClaw-RL (code; no arXiv id checked).
Changes: from grpo, a token's advantage is the outcome's plus how much likelier
  the same policy would have said the token, had it seen a hint first: the
  environment's next words, the task's answer, or the world's truth.
Command: python experiments/hindsight.py --environment=corridor
Result: not run.
Differences: the hint is words of the world as they are; the paper has a judge
  that says whether there is one, and writes it in one to three sentences: a
  judge model comes later. It is a message of its own after the history, where
  the paper lengthens the last one. The outcome is standardised in its group;
  the paper's is a judge's vote of -1, 0 or 1 for each turn, taken as it is.
"""

import dataclasses

from agentic_jax import probes
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from experiments import distill
from experiments import run


def next_words(episode, world):
  """What the environment answered to each turn."""
  del world
  return [turn.observation.text for turn in episode.turns]


def right_answer(episode, world):
  """The answer of the task, for every turn."""
  del world
  return [episode.task.answer] * len(episode.turns)


def truth(episode, world):
  """What the world kept from the policy as each turn began."""
  refuse_untold(world)
  privileged = world.environment.privileged
  return [privileged(state) for state in rollout.states(episode, world)]


def refuse_untold(world) -> None:
  """Raises ValueError where a world cannot say the truth of each turn."""
  if getattr(world.environment, 'privileged', None) is None:
    raise ValueError(
      'hint=privileged wants a world with `privileged`, which '
      f'{type(world.environment).__name__} lacks; use hint=observation.'
    )
  rollout.refuse_replay(world)


# (episode, world) -> a hint for each turn; '' is none.
HINTS = {'observation': next_words, 'answer': right_answer, 'privileged': truth}


def probing(hint, hint_tokens) -> recipe_lib.Probing:
  """Asks for each action again, after a hint."""

  def ask(episode, world):
    asked = []
    hints = HINTS[hint](episode, world)
    for turn, place in enumerate(probes.places(episode)):
      if place is None or not hints[turn]:
        continue
      segment = episode.segments[place.segment]
      history = probes.history(episode, place)
      told = world.tokenizer.observation(hints[turn])
      asked.append(
        probes.make(
          [*history, *probes.shorten(told, hint_tokens)],
          segment.tokens[place.start : place.stop],
          turn=turn,
          temperature=float(segment.temperature[place.start]),
        )
      )
    return asked

  def absorb(episode, asked, logprobs):
    # Without a hint the policy has nothing to teach itself.
    taught = [s.sampler_logprobs.copy() for s in episode.segments]
    where = probes.places(episode)
    for probe, found in zip(asked, logprobs):
      place = where[probe.turn]
      taught[place.segment][place.start : place.stop] = found
    segments = [
      segment._replace(teacher_logprobs=own)
      for segment, own in zip(episode.segments, taught)
    ]
    return episode._replace(segments=tuple(segments))

  made = recipe_lib.Probing(
    ask, absorb, extra_tokens=hint_tokens, fills=('teacher_logprobs',)
  )
  if hint == 'privileged':
    made = made._replace(refuse=refuse_untold)
  return made


def recipe(
  *,
  hint: str = 'observation',
  hint_tokens: int = 64,
  group_size: int = 8,
  outcome_weight: float = 1.0,
  teacher_weight: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.28,
  kl_coefficient: float = 0.0,
  **training,
) -> recipe_lib.Recipe:
  """Distillation from the policy with hindsight.

  Args:
    hint: observation, what the environment said next; answer, the task's; or
      privileged, the truth that the world keeps.
    hint_tokens: of a hint as a message; of a longer one the middle is left out.
    group_size: episodes of a task; at least 2 if the outcome counts.
    outcome_weight: of the standardised return; 0 is none.
    teacher_weight: of how much likelier the hint makes a token.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_unknown('hint', hint, HINTS)
  if hint_tokens < 4:
    raise ValueError(f'{hint_tokens=} leaves no room for a hint; use 16 or so.')
  distill.refuse_idle('hindsight', outcome_weight, teacher_weight)
  if outcome_weight:
    recipe_lib.refuse_single(group_size)
  base = recipe_lib.grpo(
    group_size=max(group_size, 2),
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )

  def measure(outputs, trajectory, credit):
    gap = trajectory.teacher_logprobs - trajectory.sampler_logprobs
    return {**base.measure(outputs, trajectory, credit), 'hindsight': gap}

  return dataclasses.replace(
    base,
    measure=measure,
    group_size=group_size,
    credit=distill.credit(outcome_weight, teacher_weight),
    probe=probing(hint, hint_tokens),
    granularity='token',
  )


if __name__ == '__main__':
  run.page('hindsight')
