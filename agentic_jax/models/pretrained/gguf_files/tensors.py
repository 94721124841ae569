"""The tensors of a GGUF file, under the names that a family gives them."""

from collections.abc import Mapping
import itertools
from typing import Any

import numpy as np

from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import places
from agentic_jax.models.pretrained.gguf_files import header as header_lib
from agentic_jax.models.pretrained.gguf_files import metadata


class Tensors:
  """The tensors of a file: what `loading.load` asks for."""

  def __init__(
    self, header: header_lib.Header, described: Mapping[str, Any]
  ) -> None:
    """Finds the tensors' names.

    Args:
      header: of the file.
      described: `metadata.config_json` of it.
    """
    self._header = header
    self._gguf = header_lib.package()
    self._names = _names(self._gguf, header, described)
    architecture = header.fields['general.architecture']
    self._head_dim = described['head_dim']
    # The converter turns these rows to where rotated pairs are neighbours.
    turned = ('q_proj.weight', 'k_proj.weight', 'q_proj.bias', 'k_proj.bias')
    self._turned = turned if architecture == 'llama' else ()
    # It adds the 1 that this family adds to the scale of a norm.
    self._shifted = ('norm.weight',) if architecture[:5] == 'gemma' else ()

  def __enter__(self) -> 'Tensors':
    return self

  def __exit__(self, *error: Any) -> None:
    pass

  def names(self) -> set[str]:
    """Of all tensors; those without a place in the family keep their own."""
    return set(self._names)

  def shape(self, name: str) -> tuple[int, ...]:
    """Of a tensor."""
    return self._place(name).shape

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """A piece of a tensor, in float32; only its rows and blocks are read."""
    place = self._place(name)
    rows = self._rows(place)
    order = self._order(name, place.shape)
    if len(place.shape) == 1:
      values = self._floats(rows, place.kind)
      values = (values if order is None else values[order])[index[0]]
    else:
      *outer, last = index
      kept: list[Any] = list(outer)
      if order is not None:
        kept[0] = order[kept[0]]
      start, stop, _ = last.indices(place.shape[-1])
      block, block_bytes = self._gguf.GGML_QUANT_SIZES[place.kind]
      first = start // block
      blocks = slice(first * block_bytes, -(-stop // block) * block_bytes)
      values = self._floats(rows[tuple(kept)][..., blocks], place.kind)
      values = values[..., start - first * block : stop - first * block]
    return values - 1 if name.endswith(self._shifted) else values

  def _place(self, name: str) -> header_lib.Place:
    return self._header.tensors[self._names[name]]

  def _rows(self, place: header_lib.Place) -> np.ndarray:
    """The bytes of a tensor, uint8 [..., bytes of a row]."""
    shape = (*place.shape[:-1], place.row_bytes)
    size = int(np.prod(shape, dtype=np.int64))
    data = np.asarray(self._header.data[place.offset : place.offset + size])
    return data.reshape(shape)

  def _floats(self, rows: np.ndarray, kind: Any) -> np.ndarray:
    """The numbers [..., n] of rows of blocks [..., bytes]."""
    return self._gguf.dequantize(np.ascontiguousarray(rows), kind)

  def _order(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Which stored row is each row of the tensor, where they were turned.

    Rows 2j and 2j + 1 of a stored head are rows j and j + H/2 of the head.
    """
    if not name.endswith(self._turned):
      return None
    order = np.arange(shape[0]).reshape(-1, self._head_dim // 2, 2)
    return order.swapaxes(1, 2).reshape(-1)


def _names(
  gguf: Any, header: header_lib.Header, described: Mapping[str, Any]
) -> dict[str, str]:
  """The name in the file of every tensor, by that of the family."""
  architecture = header.fields['general.architecture']
  number = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[architecture]
  layers = described['num_hidden_layers']
  mapped = gguf.get_tensor_name_map(number, layers)
  family = families.find(described['model_type'])
  stored = places.TOP | places.BLOCK | dict(family.tensors)
  wanted = {
    where.name.format(layer=layer)
    for where, layer in itertools.product(stored.values(), range(layers))
  }
  found: dict[str, str] = {}
  for name in sorted(wanted):
    own = mapped.get_name(name, try_suffixes=('.weight', '.bias'))
    if own in header.tensors:
      found[name] = own
  spare = header.tensors.keys() - found.values() - {metadata.FREQUENCIES}
  return found | {name: name for name in spare}
