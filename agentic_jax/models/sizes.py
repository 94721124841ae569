"""Named sizes of the transformer. A size is everything but the vocabulary."""

from typing import Any

from agentic_jax.models import config as config_lib

SIZES: dict[str, dict[str, Any]] = {
  # For tests: compiles in a second or two.
  'toy': dict(
    width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64
  ),
  'toy_experts': dict(
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=32,
    experts=4,
    experts_per_token=2,
  ),
  # Of the proofs on one core: 0.2M parameters.
  'small': dict(
    width=64, layers=4, heads=4, kv_heads=2, head_dim=16, mlp_width=160
  ),
  # The quickstart's.
  'mini': dict(
    width=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp_width=320
  ),
  # The shape on which benchmarks/step.py meets its peers: 3.28M parameters.
  'bench': dict(
    width=256,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=64,
    mlp_width=768,
    qk_norm='head',
  ),
}


def load(
  name: str, vocab_size: int, **settings
) -> config_lib.TransformerConfig:
  """The configuration of a named size.

  Args:
    name: a key of SIZES.
    vocab_size: V, rounded up to a multiple of 16 so that it shards.
    **settings: override fields of `TransformerConfig`.

  Raises:
    ValueError: the name is unknown.
  """
  if name not in SIZES:
    raise ValueError(
      f'--model={name!r} is not a known size; choose one of {sorted(SIZES)}, '
      'or add a line to agentic_jax/models/sizes.py.'
    )
  vocab_size = -(-vocab_size // 16) * 16
  return config_lib.TransformerConfig(
    vocab_size=vocab_size, **(SIZES[name] | settings)
  )
