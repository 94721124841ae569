"""What learns from batches: the policy, its reference, all optimiser steps."""

from collections.abc import Mapping, Sequence
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.batching import prefix_tree
from agentic_jax.models import experts as experts_lib
from agentic_jax.models import heads
from agentic_jax.models import lora
from agentic_jax.train import beginning
from agentic_jax.train import compiled
from agentic_jax.train import probing
from agentic_jax.train import step as step_lib


class InfiniteError(Exception):
  """A loss or a gradient is not finite; `names` says which."""

  def __init__(self, names: Sequence[str]):
    super().__init__(', '.join(names))
    self.names = list(names)


class Learner:
  """The parameters of a run, and the programs that change them.

  Attributes:
    state: the policy and its optimiser's.
    reference: what trains of the frozen anchor, which has no heads; None unless
      the recipe uses it. What does not train it shares with the policy.
  """

  def __init__(self, recipe, plan, state: step_lib.TrainState):
    """Compiles nothing yet.

    Args:
      recipe: the algorithm.
      plan: a `loop.Plan`.
      state: to begin with; its arrays are given up.
    """
    fields = rollout.turn_fields(recipe)
    self._shape = plan.shape._replace(turn_fields=fields)
    self._recipe, self._world = recipe, plan.world
    self._config = plan.config
    self._trees = _size_of_trees(plan, recipe)
    self._programs = compiled.compile_programs(
      plan.config, recipe, self._shape, plan.mesh
    )
    self.state = jax.device_put(state, self._programs.state_shardings)
    self.reference = None
    if recipe.uses_reference:
      # A copy: the policy's own buffers are donated to its updates.
      self.reference = jax.tree.map(jnp.copy, heads.strip(self.state.params))
    # From step to step; None where the recipe carries nothing.
    self._carried = self._programs.place(
      # Of the types that programs return, so that they compile once.
      jax.tree.map(lambda x: np.asarray(x, jnp.result_type(x)), recipe.carried)
    )
    self._teacher = beginning.place_teacher(plan.config, recipe, plan.mesh)

  def arrays(self) -> dict[str, Any]:
    """What changes in a run, on the device."""
    state = self.state._replace(frozen=None)
    arrays = {'state': state, 'reference': self.reference}
    if self._recipe.carried is not None:
      arrays['carried'] = self._carried
    return arrays

  def take(self, arrays: Mapping[str, Any]) -> None:
    """Goes back to what `arrays` returned."""
    self.state = arrays['state']._replace(frozen=self.state.frozen)
    self.reference = arrays['reference']
    self._carried = arrays.get('carried')

  def probe(self, episodes, policy: Any) -> tuple[Any, dict[str, float]]:
    """The episodes with what networks say elsewhere; `policy` sampled them.

    Unless the recipe asks, as they are.

    Here and not in `score`, because a probe is another row than the one that is
    trained on; and not in a source, so that it goes with every source.
    """
    if self._recipe.probe is None:
      return episodes, {}
    began = time.monotonic()
    filled, record = probing.fill(
      self._recipe.probe,
      self._programs.probe,
      recipe_lib.Networks(policy, self._reference(), self._teacher),
      episodes,
      self._world,
      self._shape,
    )
    return filled, record | {'time/probe': time.monotonic() - began}

  def learn(
    self, episodes
  ) -> tuple[dict[str, float], types.Credit, types.Trajectory]:
    """All optimiser steps of a batch: metrics, and what was trained on.

    Raises:
      InfiniteError: a loss or a gradient is not finite; the state is that of
        before.
    """
    recipe, shape, programs = self._recipe, self._shape, self._programs
    fills = recipe.probe.fills if recipe.probe else ()
    stacked = batching.stack(episodes, shape, fills)
    self._refuse_foreign(stacked.trajectory)
    scored = {
      name: np.zeros(stacked.trajectory.tokens.shape, np.float32)
      for name in programs.scored_fields
    }
    trajectory = self._with_record(stacked.trajectory._replace(**scored))
    trees, planted = self._plant(trajectory)
    trajectory, turns = programs.place((trajectory, stacked.turns))
    size, used = shape.microbatch_rows, stacked.microbatches
    networks = recipe_lib.Networks(
      self.state.policy, self._reference(), self._teacher
    )
    if scored:
      for i in range(used):
        start = jnp.int32(i * size)
        trajectory = programs.score(networks, trajectory, turns, start, trees)
    credit = programs.credit(trajectory, turns)
    credit, self._carried = programs.prepare(
      self.state.policy,
      trajectory,
      credit,
      self._carried,
      used,
      self._vocabulary_teacher(),
      trees,
    )
    collected = []
    for _ in range(recipe.epochs):
      for part in np.array_split(np.arange(used), recipe.minibatches):
        if len(part):
          collected.append(self._update(trajectory, turns, credit, part, trees))
    return _average(collected) | planted, credit, stacked.trajectory

  def _plant(self, trajectory) -> tuple[Any, dict[str, float]]:
    """The prefix trees of a batch on the device, if asked, and metrics."""
    if self._trees is None:
      return None, {}
    planted = prefix_tree.plant(trajectory, self._shape, self._trees)
    return self._programs.place(planted.trees), planted.metrics

  def _reference(self) -> Any:
    if self.reference is None:
      return None
    return lora.join(self.reference, self.state.frozen)

  def _update(self, trajectory, turns, credit, part, trees):
    """One optimiser step on the microbatches named in `part`."""
    programs, size = self._programs, self._shape.microbatch_rows
    first, last = int(part[0]) * size, (int(part[-1]) + 1) * size
    weights = programs.weigh(
      trajectory, turns, jnp.int32(first), jnp.int32(last)
    )
    grads, sums = programs.zero(), []
    for i in part:
      grads, more = programs.accumulate(
        self.state.params,
        self.state.frozen,
        grads,
        trajectory,
        credit,
        weights,
        jnp.int32(int(i) * size),
        self._vocabulary_teacher(),
        trees,
      )
      sums.append(more)
    return self._apply(grads, sums)

  def _vocabulary_teacher(self) -> Any:
    """Whose logits the recipe's `vocabulary` gets beside the policy's."""
    if self._recipe.vocabulary is None:
      return None
    return self._reference() if self._teacher is None else self._teacher

  def _apply(self, grads, sums) -> dict[str, float]:
    frozen = self.state.frozen
    state, norm, finite = self._programs.update(
      self.state._replace(frozen=None), grads
    )
    state = state._replace(frozen=frozen)
    total = jax.tree.map(lambda *x: float(sum(np.asarray(y) for y in x)), *sums)
    _refuse_infinite(total.terms, finite)
    record = {
      f'policy/{k}': v / max(total.counts[k], 1.0)
      for k, v in total.means.items()
    }
    record |= {f'train/loss_{k}': v for k, v in total.terms.items()}
    record['train/loss'] = sum(total.terms.values())
    record['train/gradient_norm'] = float(norm)
    record |= _learning_rate(state)
    self.state = state
    return record

  def _with_record(self, trajectory: types.Trajectory) -> types.Trajectory:
    """Every batch of a run says who saw its tokens, or none does.

    So with what might have been sampled: programs compile once.
    """
    config = self._config
    if self._recipe.sampling.cuts and trajectory.kept is None:
      size = (*trajectory.tokens.shape, -(-config.vocab_size // 8))
      trajectory = trajectory._replace(kept=np.full(size, 255, np.uint8))
    if not (config.experts and self._recipe.routing.replay):
      return trajectory._replace(experts=None)
    if trajectory.experts is not None:
      return trajectory
    size = (config.layers, config.experts_per_token)
    nothing = np.full(
      (*trajectory.tokens.shape, *size),
      experts_lib.NO_RECORD,
      experts_lib.RECORD,
    )
    return trajectory._replace(experts=nothing)

  def _refuse_foreign(self, trajectory) -> None:
    foreign = trajectory.action_mask & (trajectory.policy_step < 0)
    asked = self._recipe.demonstrations or not self._recipe.uses_sampler
    if np.any(foreign) and not asked:
      raise ValueError(
        f'{int(foreign.sum())} action tokens were not sampled by this policy, '
        'but the loss of this recipe takes a ratio to their sampler; train on '
        'them with --recipe=supervised, or a recipe that mixes demonstrations '
        'into its groups, such as --recipe=luffy.'
      )


def _size_of_trees(plan, recipe) -> prefix_tree.Size | None:
  """Of the prefix trees of a microbatch, if the plan asks for them."""
  if not plan.prefix_tree:
    return None
  axes = plan.mesh.shape
  return prefix_tree.size_for(
    plan.shape,
    plan.prefix_tree,
    groups=max(plan.shape.episodes // recipe.group_size, 1),
    devices=axes['data'] * axes['fsdp'],
  )


def _learning_rate(state) -> dict[str, float]:
  """The rate of an optimiser that keeps it in its state, else nothing."""
  held = optax.tree.get_all_with_path(state.optimizer_state, 'learning_rate')
  rates = [value for _, value in held if isinstance(value, jax.Array)]
  if len(rates) != 1:
    return {}
  return {'train/learning_rate': float(rates[0])}


def _refuse_infinite(terms: Mapping[str, float], finite: Any) -> None:
  """Raises before a broken update is ever taken."""
  bad = [f'loss term {k!r}' for k, v in terms.items() if not np.isfinite(v)]
  bad += [
    f'gradient of {jax.tree_util.keystr(path)}'
    for path, good in jax.tree_util.tree_leaves_with_path(finite)
    if not good
  ]
  if bad:
    raise InfiniteError(bad)


def _average(collected) -> dict[str, float]:
  if not collected:
    return {}
  first, last = collected[0], collected[-1]
  found = {k: float(np.mean([c[k] for c in collected])) for k in first}
  # Later updates leave the sampler behind, which is no fault of sampling.
  chosen = {'policy/ratio_mismatch': first, 'train/learning_rate': last}
  return found | {k: at[k] for k, at in chosen.items() if k in found}
