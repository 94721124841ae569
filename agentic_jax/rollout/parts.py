"""The parts of several agents in an episode, each an episode of its own."""

from collections.abc import Mapping, Sequence

import numpy as np

from agentic_jax import types


def of_all(played: Sequence[types.Episode], agents: int) -> list[types.Episode]:
  """The parts of all agents in episodes, agent by agent.

  With them every estimator gives an agent credit for what it earned itself,
  against others in its own place.

  Args:
    played: whole episodes of one group or of several.
    agents: of the world; of 1 an episode is its part.
  """
  if agents == 1:
    return list(played)
  return [of(episode, agent) for agent in range(agents) for episode in played]


def of(episode: types.Episode, agent: int) -> types.Episode:
  """An agent's part: its turns, and the segments in which it acted.

  What answers a turn there is what the agent was told before its next one. One
  that never moved has a part without turns, on which nothing is trained.
  """
  own = [i for i, turn in enumerate(episode.turns) if turn.agent == agent]
  # The last entry is that of tokens that are of no turn.
  numbers = np.full(len(episode.turns) + 1, -1, np.int32)
  numbers[own] = np.arange(len(own))
  return episode._replace(
    agent=agent,
    turns=tuple(
      episode.turns[i]._replace(observation=_answer(episode, after))
      for i, after in zip(own, [*own[1:], None], strict=False)
    ),
    segments=tuple(
      segment._replace(turn=numbers[segment.turn])
      for segment in episode.segments
      if np.any(numbers[segment.turn] >= 0)
    ),
  )


def by_agent(group: Sequence[types.Episode]) -> list[list[types.Episode]]:
  """The parts in a group, those of each agent together; some at least."""
  agents = sorted({episode.agent for episode in group})
  return [[e for e in group if e.agent == agent] for agent in agents]


def _answer(episode: types.Episode, after: int | None) -> types.Observation:
  """What an agent was told before a turn; None is that it has no further."""
  if after is None:
    return types.Observation('')
  return episode.turns[after - 1].observation


def paid(
  turns: Sequence[types.Turn], others: Mapping[int, Mapping[str, float]]
) -> list[types.Turn]:
  """Turns with rewards of agents that did not move, added to their last ones.

  Args:
    turns: so far.
    others: of a transition. An agent that has not moved yet gets nothing.
  """
  turns = list(turns)
  for agent, found in others.items():
    own = [i for i, turn in enumerate(turns) if turn.agent == agent]
    for i in own[-1:]:
      reward = dict(turns[i].reward)
      for name, value in found.items():
        reward[name] = reward.get(name, 0.0) + float(value)
      turns[i] = turns[i]._replace(reward=reward)
  return turns
