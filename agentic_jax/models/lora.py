"""Adapters of low rank: which parameters train, how they join the base."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from agentic_jax.models import config as config_lib
from agentic_jax.types import Array

# Matrices that share an input, and what they are called as one.
FUSED = {
  'query_key_value': ('query', 'key', 'value'),
  'gate_up': ('gate', 'up'),
}


def merges(config: config_lib.TransformerConfig) -> bool:
  """Whether decoding adds the adapters to the base.

  In float32 that costs a rounding; narrower matrices would swallow them.
  """
  wide = jnp.dtype(config.dtype).itemsize >= 4
  return wide and not config.base


def rank_of(
  config: config_lib.TransformerConfig, name: str, *, fused: bool
) -> int:
  """The rank of a matrix's adapter, or of several fused ones; 0 is none."""
  if config.lora is None or (fused and merges(config)):
    return 0
  names = FUSED.get(name, (name,))
  return config.lora.rank * sum(n in config.lora.targets for n in names)


def merge(config: config_lib.TransformerConfig, blocks: Any) -> Any:
  """The stacked blocks with adapters added: W + scale A B."""
  if config.lora is None:
    return blocks
  found = {k: v for k, v in blocks.items() if not is_adapter(k)}
  for name in config.lora.targets:
    a, b = blocks[f'{name}_lora_a'], blocks[f'{name}_lora_b']
    wide = jnp.promote_types(a.dtype, jnp.float32)
    delta = jnp.matmul(
      a.astype(wide), b.astype(wide), precision=jax.lax.Precision.HIGHEST
    )
    whole = found[name].astype(wide) + config.lora.scale * delta
    found[name] = whole.astype(config.dtype)
  return found


def fuse_adapters(
  config: config_lib.TransformerConfig,
  blocks: dict[str, Array],
  joint: str,
  names: tuple[str, ...],
) -> None:
  """Replaces the adapters of some matrices by that of the fused one.

  [x A_1, x A_2] diag(B_1, B_2) = [x A_1 B_1, x A_2 B_2]
  """
  targets = [n for n in names if f'{n}_lora_a' in blocks]
  if not targets:
    return
  sizes = [blocks[name].shape[-1] for name in names]
  starts = dict(
    zip(names, [sum(sizes[:i]) for i in range(len(sizes))], strict=True)
  )
  lefts = [blocks.pop(f'{name}_lora_a') for name in targets]
  rights = [blocks.pop(f'{name}_lora_b') for name in targets]
  *leading, rank, _ = rights[0].shape
  shape = (*leading, rank * len(targets), sum(sizes))
  whole = jnp.zeros(shape, rights[0].dtype)
  for i, (name, right) in enumerate(zip(targets, rights, strict=True)):
    at = (*[0] * len(leading), i * rank, starts[name])
    whole = jax.lax.dynamic_update_slice(whole, right, at)
  blocks[f'{joint}_lora_a'] = jnp.concatenate(lefts, axis=-1)
  blocks[f'{joint}_lora_b'] = whole


def differences(asked: config_lib.Lora, held: config_lib.Lora) -> list[str]:
  """In what adapters differ, for messages; the order of targets is no matter.

  Args:
    asked: what they are to be.
    held: what they are.
  """
  found = []
  for field in dataclasses.fields(config_lib.Lora):
    one, other = (getattr(each, field.name) for each in (asked, held))
    if field.name == 'targets':
      one, other = sorted(one), sorted(other)
    if one != other:
      found.append(f'{field.name} is {one!r}, and was {other!r}')
  return found


def refuse_rescaled(
  asked: config_lib.Lora | None, held: config_lib.Lora | None, origin: str
) -> None:
  """Refuses adapters that were trained at another scale.

  The same A and B would then be another policy, W + scale A B.

  Args:
    asked: of the policy; None has no adapters.
    held: at which the parameters were trained; None if they have none, or if
      nobody knows.
    origin: where they come from, for the message.

  Raises:
    ValueError: the scales differ.
  """
  if asked is None or held is None or asked.scale == held.scale:
    return
  stabilised = '&rank_stabilised=True' if held.rank_stabilised else ''
  raise ValueError(
    f'The adapters of {origin} were trained at the scale {held.scale:g}, and '
    f'this policy takes them times {asked.scale:g}: '
    f'{"; ".join(differences(asked, held))}. Give --model the settings that '
    f'they were trained with: ?rank={held.rank}&alpha={held.alpha:g}'
    f'{stabilised}.'
  )


def is_adapter(name: str) -> bool:
  """Whether a parameter belongs to an adapter."""
  return name.endswith(('_lora_a', '_lora_b'))


def split(config: config_lib.TransformerConfig, params: Any) -> tuple[Any, Any]:
  """The parameters that train, and those that do not: two trees.

  Without adapters all of them train, but for an encoder of images that is
  frozen; if nothing is, the second tree is None. Heads, and a trunk that they
  have to themselves, train in any case.
  """
  if config.lora is None:
    if config.vision is None or not config.vision.frozen:
      return params, None
    encoder = dict(params['vision'])
    projector = {'projector': encoder.pop('projector')}
    return {**params, 'vision': projector}, {'vision': encoder}
  blocks = params['blocks']
  trains = {'blocks': {k: v for k, v in blocks.items() if is_adapter(k)}}
  own = {k: v for k, v in params.items() if k in config_lib.OWN}
  frozen = {k: v for k, v in params.items() if k not in own}
  frozen['blocks'] = {k: v for k, v in blocks.items() if not is_adapter(k)}
  return trains | own, frozen


def join(trains: Any, frozen: Any) -> Any:
  """The whole tree again."""
  if frozen is None:
    return trains
  both = {
    name: {**frozen[name], **trains[name]}
    for name in frozen.keys() & trains.keys()
  }
  return {**frozen, **trains, **both}


def quantise(matrix: Array) -> tuple[Array, Array]:
  """int8 [..., n, m] and scales [..., m] that give a matrix back, nearly.

    W ~ round(W / s) s,   s = max |W| of a column / 127

  The error of an entry is at most half a scale.
  """
  wide = jnp.asarray(matrix, jnp.float32)
  scale = jnp.max(jnp.abs(wide), axis=-2) / 127
  safe = jnp.where(scale > 0, scale, 1.0)
  return jnp.round(wide / safe[..., None, :]).astype(jnp.int8), scale


def narrow(config: config_lib.TransformerConfig, params: Any) -> Any:
  """Full-width parameters as the configuration keeps its frozen base."""
  kept = {
    name: narrow_one(config, f'blocks/{name}', leaf)
    for name, leaf in params['blocks'].items()
  }
  return gather(config, {**params, 'blocks': kept})


def narrow_one(
  config: config_lib.TransformerConfig, path: str, leaf: Any
) -> Any:
  """One parameter as it is kept; of int8 the pair that `quantise` gives."""
  if path.removeprefix('blocks/') not in config_lib.MATRICES:
    return leaf
  if config.base == 'int8':
    codes, scale = quantise(leaf)
    return codes, scale.astype(config.dtype)
  return leaf.astype(config.base or leaf.dtype)


def gather(config: config_lib.TransformerConfig, params: Any) -> Any:
  """The tree in which pairs of int8 and scales have names of their own."""
  if config.base != 'int8':
    return params
  blocks = dict(params['blocks'])
  for name in config_lib.MATRICES:
    blocks[name], blocks[f'{name}_scale'] = blocks[name]
  return {**params, 'blocks': blocks}
