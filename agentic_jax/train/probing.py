"""Has the probes of a batch answered: one compiled program, one shape."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from agentic_jax import batching
from agentic_jax import probes as probes_lib
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.train import step as step_lib

# (params, trajectory [rows, T]) -> log-probabilities [rows, T].
Program = Callable[[Any, types.Trajectory], jax.Array]


def row_tokens(probing: recipe_lib.Probing, shape: batching.Shape) -> int:
  """The length of a row of probes."""
  return shape.row_tokens + probing.extra_tokens


def probed(
  recipe: recipe_lib.Recipe,
  config: config_lib.TransformerConfig,
  params: Any,
  episodes: Sequence[types.Episode],
  world: Any,
  shape: batching.Shape,
) -> batching.Stacked:
  """A batch with what its probes found, outside of the loop: compiles anew.

  Args:
    recipe: without probes, the episodes are stacked as they are.
    config: of the policy.
    params: that sampled the episodes, and are the reference.
    episodes: of a step.
    world: of the rollout.
    shape: of the batch.
  """
  if recipe.probe is None:
    return batching.stack(episodes, shape)
  apply = step_lib.apply_of(config)
  program = jax.jit(lambda params, rows: apply(params, rows).logprobs)
  networks = recipe_lib.Networks(params, params, recipe.teacher)
  found, _ = fill(recipe.probe, program, networks, episodes, world, shape)
  return batching.stack(found, shape, recipe.probe.fills)


def fill(
  probing: recipe_lib.Probing,
  program: Program,
  networks: recipe_lib.Networks,
  episodes: Sequence[types.Episode],
  world: Any,
  shape: batching.Shape,
) -> tuple[list[types.Episode], dict[str, float]]:
  """The episodes with what their probes found, and metrics.

  A failed episode is not asked about, and stays as it is. Probes that are
  alike, such as those of the prompt of a group, are answered once.

  Args:
    probing: of the recipe.
    program: answers a batch of probes.
    networks: who may be asked; the policy is the one that sampled.
    episodes: of a step.
    world: of the rollout.
    shape: of the batches that are trained on.

  Raises:
    ValueError: there is no world, a probe does not fit or asks a network that
      the recipe lacks, or `absorb` changed tokens.
  """
  if world is None:
    raise ValueError(
      'This recipe asks the policy in contexts of its own, for which it wants '
      'the world; give it to the run: Plan(..., world=world).'
    )
  if any(
    s.images is not None and len(s.images) for e in episodes for s in e.segments
  ):
    raise ValueError(
      'Probes have no images, and these episodes do: what the policy would say '
      'without them is another question. Take a recipe without probes.'
    )
  asked = [
    [] if episode.failure else list(probing.ask(episode, world))
    for episode in episodes
  ]
  unique: dict[Any, probes_lib.Probe] = {}
  for probe in (probe for own in asked for probe in own):
    unique.setdefault(_key(probe), probe)
  answers = dict(
    zip(
      unique,
      _answer(program, networks, list(unique.values()), probing, shape),
    )
  )
  filled = []
  for episode, own in zip(episodes, asked, strict=True):
    absorbed = episode
    if not episode.failure:
      found = [answers[_key(probe)] for probe in own]
      absorbed = probing.absorb(episode, own, found)
      _refuse_changed(episode, absorbed)
    filled.append(absorbed)
  return filled, _metrics(episodes, filled, answers)


def _key(probe: probes_lib.Probe) -> tuple[Any, ...]:
  tokens, mask = probe.tokens.tobytes(), probe.mask.tobytes()
  return tokens, mask, probe.temperature, probe.network


def _answer(program, networks, asked, probing, shape) -> list[np.ndarray]:
  """The log-probabilities that each probe asks for, in order."""
  found: dict[int, np.ndarray] = {}
  for name in dict.fromkeys(probe.network for probe in asked):
    params = _network(networks, name)
    own = [i for i, probe in enumerate(asked) if probe.network == name]
    for laid in probes_lib.lay_out(
      [asked[i] for i in own],
      rows=shape.microbatch_rows,
      row_tokens=row_tokens(probing, shape),
    ):
      logprobs = np.asarray(program(params, laid.trajectory))
      for number, (row, start) in laid.starts.items():
        mask = asked[own[number]].mask
        found[own[number]] = logprobs[row, start : start + len(mask)][mask]
  return [found[i] for i in range(len(asked))]


def _network(networks: recipe_lib.Networks, name: str) -> Any:
  params = getattr(networks, name, None)
  if params is None:
    there = [k for k, v in networks._asdict().items() if v is not None]
    raise ValueError(
      f'A probe asks the network {name!r}, and this recipe has '
      f'{", ".join(there) or "none"}; ask one of these, or give the recipe '
      'uses_reference=True or a teacher.'
    )
  return params


def _refuse_changed(before: types.Episode, after: types.Episode) -> None:
  same = len(before.segments) == len(after.segments) and all(
    np.array_equal(old.tokens, new.tokens)
    and np.array_equal(old.action_mask, new.action_mask)
    for old, new in zip(before.segments, after.segments)
  )
  if not same:
    raise ValueError(
      f'The absorb of a probe changed the tokens of the episode of task '
      f'{before.task.prompt!r:.80}; what the policy said and saw stays as it '
      'was. Change rewards or teacher_logprobs only.'
    )


def _metrics(before, after, answers) -> dict[str, float]:
  said = [float(x) for found in answers.values() for x in found]
  good = [(x, y) for x, y in zip(before, after) if not x.failure]
  gained = [new.reward - old.reward for old, new in good]
  metrics = {
    'probe/probes': float(len(answers)),
    'probe/logprob': float(np.mean(said)) if said else 0.0,
    'probe/reward': float(np.mean(gained)) if gained else 0.0,
  }
  if any(gained):
    name = 'rollout/zero_spread_groups'
    metrics[name] = rollout.statistics(after)[name]
  return metrics
