"""What is read off hidden states besides the next token: linear heads.

They lie beside the trunk in the tree of parameters, under 'heads', and read
its last hidden states or those of a trunk of their own, under 'critic'. That
one holds what trains of the policy's trunk: all of it, or beside a frozen base
adapters of its own.
"""

from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from agentic_jax import losses
from agentic_jax import types
from agentic_jax.models import block
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.types import Array


class Readings(NamedTuple):
  """What the heads say of hidden states; None where there is no such head."""

  value: Array | None  # float32 [..., H, K]
  reward: Array | None  # float32 [...]
  step: Array | None  # float32 [..., C]


class Heads(nn.Module):
  """The heads of a configuration; all begin at 0."""

  config: config_lib.TransformerConfig

  @nn.compact
  def __call__(self, hidden: Array) -> Readings:
    """Reads hidden states [..., D]; float32 at least."""
    asked, width = self.config.output_heads, self.config.width

    def read(name, *sizes):
      axes = ('embed', *['readings'] * len(sizes))
      matrix = block.parameter(
        self, name, (width, *sizes), axes, nn.initializers.zeros
      )
      kind = jnp.promote_types(hidden.dtype, jnp.float32)
      found = block.matmul(hidden, matrix.reshape(width, -1), kind)
      return found.reshape(*hidden.shape[:-1], *sizes)

    value = asked.value
    return Readings(
      read('value', value.number, value.parts) if value else None,
      read('reward') if asked.reward else None,
      read('step', asked.step_classes) if asked.step_classes else None,
    )


def of_role(head: types.ValueHead, parts: Array, role: Array) -> Array:
  """What the head of each token's role says: [B, T, K] of [B, T, H, K].

  Args:
    head: which of H heads each role has.
    parts: float [B, T, H, K], of the state before each token.
    role: int [B, T], of each token.
  """
  chex.assert_shape(parts, (*role.shape, head.number, head.parts))
  if not head.levels:
    return parts[:, :, 0]
  level = jnp.asarray(head.levels)[role][:, :, None, None]
  return jnp.take_along_axis(parts, level, axis=2)[:, :, 0]


def value_of(head: types.ValueHead, parts: Array) -> Array:
  """The value [...] that the K numbers [..., K] of a head say: their mean."""
  if head.bins:
    return losses.bin_mean(parts, low=head.low, high=head.high)
  return jnp.mean(parts, axis=-1) if head.quantiles else parts[..., 0]


def strip(params: Any) -> Any:
  """The parameters without heads, and without a trunk that they have."""
  return {k: v for k, v in params.items() if k not in config_lib.OWN}


def with_critic(config: config_lib.TransformerConfig, params: Any) -> Any:
  """The parameters with a trunk for the heads, if they want one.

  It is a copy of what trains of the policy's trunk, but for the output
  projection, which no head needs.
  """
  if not config.output_heads.separate or 'critic' in params:
    return params
  trains, _ = lora.split(config, strip(params))
  trunk = {k: v for k, v in trains.items() if k != 'unembedding'}
  return {**params, 'critic': jax.tree.map(jnp.copy, trunk)}


def critic(config: config_lib.TransformerConfig, params: Any) -> Any:
  """The parameters with the heads' own trunk in the place of the policy's.

  What it does not have itself is the policy's: a frozen base, and the output
  projection, which is not used.
  """
  trunk = strip(params)
  _, frozen = lora.split(config, trunk)
  own = lora.join(params['critic'], frozen)
  return {**trunk, **own, 'heads': params['heads']}
