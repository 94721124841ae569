"""Served sessions as batches to train on."""

from collections.abc import Callable, Mapping
import time
from typing import Any, Self

import numpy as np

from agentic_jax import batching
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.rollout import counting
from agentic_jax.serve import endpoint as endpoint_lib
from agentic_jax.serve import records


class Served:
  """Batches of the sessions that clients finish, as they finish them.

  A batch waits until enough groups are complete: sessions that share a group,
  named by the metadata of their first request or else given by the ids they
  begin with. Unlike rollouts it follows from what clients do and when, and no
  seed repeats it.

  Turns of a temperature below `records.LEAST_TEMPERATURE`, such as a client's
  `temperature: 0`, are context and are not trained on.

    with Served(endpoint, ...) as source:
      train.run(recipe, source, plan)

  At the end of `with`, whoever waits while a batch is trained on is answered by
  the parameters of before, also where training raised; to answer by others,
  call `endpoint.dispatcher.load` before that.
  """

  def __init__(
    self,
    endpoint: endpoint_lib.Endpoint,
    *,
    groups_per_step: int,
    group_size: int,
    keep: Callable[[types.Turns], np.ndarray] | None = None,
    resample_limit: int = 4,
    limit_seconds: float = 3600.0,
    hold: bool = True,
  ):
    """Says what makes a batch.

    Args:
      endpoint: that clients talk to.
      groups_per_step: of a batch.
      group_size: sessions of a group.
      keep: says which groups are worth training on.
      resample_limit: how many times the batch's groups may be replaced; then
        the batch stays short.
      limit_seconds: how long a batch waits.
      hold: whether turns wait while a batch is trained on. Otherwise clients
        go on with the parameters of before, and the faster they are, the
        staler are later batches.
    """
    self._endpoint = endpoint
    self._groups_per_step, self._group_size = groups_per_step, group_size
    self._keep, self._resample_limit = keep, resample_limit
    self._limit_seconds = limit_seconds
    self._hold = hold
    self._draws = 0

  def __enter__(self) -> Self:
    """Nothing waits yet."""
    return self

  def __exit__(self, *raised: object) -> None:
    """Nothing waits any more."""
    self._endpoint.dispatcher.release()

  def batch(self, step: int, params: Any) -> rollout.Batch:
    """The next groups; from now on `params` answer.

    Sessions that began before may have turns of earlier parameters, each token
    with its own `policy_step`.

    Raises:
      RuntimeError: not enough sessions were finished in time, too many failed,
        or the sampler has stopped.
    """
    self._endpoint.dispatcher.load(params, step)
    accepted: list[list[types.Episode]] = []
    everything: list[types.Episode] = []
    breaks, greedy, rejected = 0, 0, 0
    deadline = time.monotonic() + self._limit_seconds
    most = self._groups_per_step * self._resample_limit
    while len(accepted) < self._groups_per_step and rejected <= most:
      sessions = self._wait(deadline, len(accepted))
      group = self._episodes(sessions)
      breaks += sum(session.breaks for session in sessions)
      greedy += sum(turn.greedy for s in sessions for turn in s.turns)
      everything += group
      if self._keeps(group):
        accepted.append(group)
      else:
        rejected += 1
    if self._hold:
      self._endpoint.dispatcher.hold()
    limit = self._endpoint.limits.failed_share
    counting.refuse_failures(everything, limit)
    metrics = rollout.statistics(everything)
    metrics['rollout/groups_resampled'] = float(rejected)
    missing = self._groups_per_step - len(accepted)
    metrics['rollout/groups_missing'] = float(missing)
    metrics['serve/breaks'] = float(breaks)
    metrics['serve/greedy_turns'] = float(greedy)
    metrics |= self._metrics(everything, step)
    return rollout.Batch([e for group in accepted for e in group], metrics)

  def _wait(self, deadline: float, have: int) -> list[records.Session]:
    """The group that is complete next."""
    sessions = self._endpoint.sessions
    with sessions.changed:
      while (group := sessions.take(self._group_size)) is None:
        self._endpoint.dispatcher.check()
        if time.monotonic() > deadline:
          raise RuntimeError(
            f'{have} of {self._groups_per_step} groups of {self._group_size} '
            f'sessions were finished within {self._limit_seconds:g} s, and '
            f'{sessions.open} sessions are open. A session is finished by POST '
            '/v1/sessions/NAME/reward, or by a judge; those of a group begin '
            'with the same messages, or name it: metadata={"group": NAME}.'
          )
        sessions.changed.wait(0.5)
      return group

  def _episodes(self, sessions: list[records.Session]) -> list[types.Episode]:
    found = [
      records.episode_of(
        session,
        self._endpoint.dialect,
        self._endpoint.tokenizer.pieces,
        draw=self._draws,
        member=member,
      )
      for member, session in enumerate(sessions)
    ]
    self._draws += 1
    return found

  def _keeps(self, group: list[types.Episode]) -> bool:
    if self._keep is None:
      return True
    return bool(np.all(self._keep(batching.turns_of(group))))

  def _metrics(
    self, played: list[types.Episode], step: int
  ) -> dict[str, float]:
    steps = [
      segment.policy_step[segment.action_mask]
      for episode in played
      for segment in episode.segments
    ]
    late = np.concatenate(steps) < step
    counts = self._endpoint.sessions.counts
    return {
      'serve/stale_tokens': float(np.mean(late)) if late.size else 0.0,
      'serve/sessions_open': float(self._endpoint.sessions.open),
      'serve/sessions_dropped': float(counts['dropped']),
      'serve/turns_given_up': float(counts['given_up']),
    }

  def position(self) -> Mapping[str, Any]:
    """Where the source stands; sessions under way are lost with a process."""
    return {'draws': self._draws, 'sessions': self._endpoint.sessions.number}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes on counting, so that no random number is used again."""
    self._draws = position['draws']
    self._endpoint.sessions.number = position['sessions']
