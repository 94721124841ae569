"""Losses of the routers of a mixture of experts.

Every layer's loss is that of the papers; the mean over layers is returned.
"""

import chex
import jax
import jax.numpy as jnp


def expert_shares(
  experts: jax.Array, mask: jax.Array, *, number: int
) -> jax.Array:
  """How large a share of the tokens each expert sees.

    f_i = 1/N Σ_t 1{expert i is among the k of token t},   Σ_i f_i = k

  over the N tokens of `mask`.

  Args:
    experts: int [B, T, L, k], of each of L layers.
    mask: bool [B, T], the tokens that count.
    number: of experts of a layer, X.

  Returns:
    float32 [L, X]; 0 if no token counts. Nothing to take a gradient of.

  References:
    Fedus et al., 2021, arXiv:2101.03961, equation 5, for k = 1.
  """
  chex.assert_rank([experts, mask], [4, 2])
  chex.assert_type([experts, mask], [int, bool])
  counted = jnp.where(mask[..., None, None], experts, -1)  # [B, T, L, k]
  layers = jnp.moveaxis(counted, 2, 0).reshape(counted.shape[2], -1)
  count = lambda i: jnp.sum(layers == i, axis=-1, dtype=jnp.float32)  # [L]
  counts = jax.lax.map(count, jnp.arange(number))
  return counts.T / jnp.maximum(jnp.sum(mask), 1)


def load_balance(
  router_logits: jax.Array, shares: jax.Array, mask: jax.Array
) -> jax.Array:
  """What a token adds to the imbalance of the experts.

    ℓ_t = X Σ_i f_i p_i(t),   p(t) = softmax(router logits of t)

  Its mean over tokens is X Σ_i f_i P_i with P_i the mean of p_i: least, and
  equal to k, when all experts are used alike. With f given, the sum over tokens
  has the gradient of the whole batch's loss however the batch is cut.

  Args:
    router_logits: float [B, T, L, X]. Ignored outside `mask`.
    shares: float [B, L, X], f of the whole batch, the same in every row. No
      gradient flows through it.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`.

  References:
    Fedus et al., 2021, arXiv:2101.03961, equations 4 to 6, for k = 1.
    Jiang et al., 2024, arXiv:2401.04088: their published code has it for k, of
      the f and P of all layers together instead of layer by layer.
  """
  chex.assert_rank([router_logits, shares, mask], [4, 3, 2])
  chex.assert_type([router_logits, shares, mask], [float, float, bool])
  safe = jnp.where(mask[..., None, None], router_logits, 0)
  shares = jax.lax.stop_gradient(shares)[:, None]
  layers = jnp.sum(shares * jax.nn.softmax(safe), axis=-1) * safe.shape[-1]
  return jnp.where(mask, jnp.mean(layers, axis=-1), 0)


def router_z(router_logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Keeps the logits of routers small, where rounding is finer.

    z_t = (log Σ_i exp x_i(t))²

  Args:
    router_logits: float [B, T, L, X]. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`, nowhere negative.

  References:
    Zoph et al., 2022, arXiv:2202.08906, equation 5.
  """
  chex.assert_rank([router_logits, mask], [4, 2])
  chex.assert_type([router_logits, mask], [float, bool])
  safe = jnp.where(mask[..., None, None], router_logits, 0)
  layers = jax.nn.logsumexp(safe, axis=-1) ** 2
  return jnp.where(mask, jnp.mean(layers, axis=-1), 0)
