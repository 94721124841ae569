"""The pure functions of an optimiser step.

The scalar is additive over rows, so a step is the same for any number of
microbatches or devices: gradients of microbatches add up, under `jax.jit` with
shardings as well as under `jax.pmap` with a `psum`.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models import transformer
from agentic_jax.types import Array

# (params, trajectory, *, vocabulary, teacher) -> Outputs.
Apply = Callable[..., types.Outputs]


class TrainState(NamedTuple):
  """What an optimiser step changes, and the frozen rest of the policy."""

  params: Any  # Those that train.
  optimizer_state: Any
  frozen: Any = None  # The others, beside adapters; None if all train.

  @property
  def policy(self) -> Any:
    """All parameters of the policy, in one tree."""
    return lora.join(self.params, self.frozen)


class Sums(NamedTuple):
  """What microbatches add up to, besides gradients."""

  terms: dict[str, Array]  # Weighted sums of each term of the loss.
  means: dict[str, Array]  # Sums over the tokens that each counts.
  counts: dict[str, Array]  # How many tokens these are.


def apply_of(config: config_lib.TransformerConfig) -> Apply:
  """The policy as a function (params, trajectory) -> Outputs."""
  return functools.partial(transformer.outputs, config)


def take_rows(tree: Any, start: Array, rows: int) -> Any:
  """Rows [start, start + rows) of every array of a tree."""
  return jax.tree.map(
    lambda x: jax.lax.dynamic_slice_in_dim(x, start, rows), tree
  )


def put_rows(tree: Any, part: Any, start: Array) -> Any:
  """The tree with rows from `start` on replaced by those of `part`."""
  return jax.tree.map(
    lambda x, y: jax.lax.dynamic_update_slice_in_dim(
      x, y.astype(x.dtype), start, 0
    ),
    tree,
    part,
  )


def outputs_of(
  recipe: recipe_lib.Recipe,
  apply: Apply,
  params: Any,
  trajectory: types.Trajectory,
  teacher: Any = None,
) -> types.Outputs:
  """What the policy says, with what the recipe reads off the vocabulary."""
  if recipe.vocabulary is None:
    return apply(params, trajectory)
  return apply(
    params, trajectory, vocabulary=recipe.vocabulary, teacher=teacher
  )


def objective(
  recipe: recipe_lib.Recipe,
  apply: Apply,
  params: Any,
  trajectory: types.Trajectory,
  credit: types.Credit,
  weights: dict[str, Array],
  teacher: Any = None,
) -> tuple[Array, Sums]:
  """The scalar to minimise, and sums for the metrics.

    sum over terms of sum over [B, T] of weight * loss

  Args:
    recipe: its `loss` and `measure` are used.
    apply: the policy.
    params: its parameters.
    trajectory: the rows of a microbatch.
    credit: of these rows.
    weights: of these rows, by term.
    teacher: parameters whose logits the recipe's `vocabulary` gets.

  Raises:
    ValueError: the terms of `loss` and of `weigh` differ.
  """
  outputs = outputs_of(recipe, apply, params, trajectory, teacher)
  found = recipe.loss(outputs, trajectory, credit)
  _check_terms(found, weights, trajectory.action_mask.shape)
  terms = {
    # Padding may be anything, and 0 * anything must be 0.
    name: jnp.sum(jnp.where(weights[name] != 0, weights[name] * value, 0.0))
    for name, value in found.items()
  }
  means = _diagnostics(recipe, outputs, trajectory, credit)
  masks = dict.fromkeys(means, trajectory.action_mask)
  # Nobody knows how likely a demonstration was to whoever wrote it.
  sampled = trajectory.action_mask & (trajectory.policy_step >= 0)
  masks |= {k: sampled for k in means if k == 'ratio_mismatch'}
  sums = {k: jnp.sum(jnp.where(masks[k], v, 0.0)) for k, v in means.items()}
  total = functools.reduce(jnp.add, terms.values())
  counts = {k: jnp.sum(v).astype(total.dtype) for k, v in masks.items()}
  return total, jax.lax.stop_gradient(Sums(terms, sums, counts))


def _check_terms(found: Any, weights: Any, shape: tuple[int, ...]) -> None:
  """Refuses what is not one array of [B, T] for each weighed term."""
  if not isinstance(found, Mapping):
    raise ValueError(
      f'A loss returns terms by name, each an array [B, T] that is not reduced '
      f"yet, such as {{'policy': -credit.advantages * outputs.logprobs}}; got "
      f'{type(found).__name__}.'
    )
  if set(found) != set(weights):
    raise ValueError(
      f'The loss has the terms {sorted(found)}, but weigh gives weights for '
      f'{sorted(weights)}; name the same terms in both, for example by '
      f'weigh=recipe.terms(recipe.weigh_tokens, '
      f'{", ".join(map(repr, sorted(found)))}).'
    )
  for name, value in found.items():
    if jnp.shape(value) != shape:
      raise ValueError(
        f'The term {name!r} of the loss has shape {jnp.shape(value)}, wanted '
        f'[B, T] = {shape}: a loss is not reduced, `weigh` does that.'
      )


def _diagnostics(recipe, outputs, trajectory, credit) -> dict[str, Array]:
  """Numbers [B, T] whose mean over the action tokens is logged.

  That of ratio_mismatch is over the tokens that we sampled.
  """
  means = dict(recipe.measure(outputs, trajectory, credit))
  if outputs.entropy is not None:
    means['entropy'] = outputs.entropy
  if recipe.uses_sampler:
    gap = outputs.logprobs - trajectory.sampler_logprobs
    means['ratio_mismatch'] = jnp.abs(gap)
  if trajectory.reference_logprobs is not None:
    gap = trajectory.reference_logprobs - outputs.logprobs
    means['kl'] = jnp.exp(jnp.clip(gap, -20.0, 20.0)) - 1 - gap
  return means


def gradients(
  recipe: recipe_lib.Recipe,
  apply: Apply,
  params: Any,
  trajectory: types.Trajectory,
  credit: types.Credit,
  weights: dict[str, Array],
  teacher: Any = None,
) -> tuple[Any, Sums]:
  """Gradients of `objective`, and its sums."""
  grad = jax.grad(
    lambda p: objective(recipe, apply, p, trajectory, credit, weights, teacher),
    has_aux=True,
  )
  return grad(params)


def update(
  optimizer: optax.GradientTransformation, state: TrainState, grads: Any
) -> tuple[TrainState, Array, Any]:
  """One optimiser step.

  Returns:
    The new state, the global norm of the gradients, and for each gradient
    whether all of it is finite.
  """
  updates, optimizer_state = optimizer.update(
    grads, state.optimizer_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  finite = jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), grads)
  state = state._replace(params=params, optimizer_state=optimizer_state)
  return state, optax.tree.norm(grads), finite
