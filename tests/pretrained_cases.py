"""Published checkpoints of tests/fixtures/pretrained, and what we say of them.

`make_pretrained_fixtures.py` writes them and says what they hold.
"""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import transformer
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import visual
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib

FOLDER = pathlib.Path(__file__).parent / 'fixtures' / 'pretrained'
CASES = tuple(sorted(path.name for path in FOLDER.iterdir()))

# One of the two shapes of each family, by turns: what is slow, and different
# from the rest in nothing that differs between the two, is asked of these.
HALF = tuple(case for i, case in enumerate(CASES) if i % 4 in (0, 3))

# How long segments may become: past the rows and the continuations.
POSITIONS = 90


class Model(NamedTuple):
  """A checkpoint, loaded."""

  config: config_lib.TransformerConfig
  params: Any


def load(
  directory: pathlib.Path, dtype: str = 'float32', mesh: str = ''
) -> Model:
  """The checkpoint of a directory, laid over a mesh."""
  source = loading.read_json(directory / 'config.json')
  config = visual.read(source, positions=POSITIONS, dtype=dtype)
  init = functools.partial(transformer.init, config)
  shapes = jax.eval_shape(init, jax.random.key(0))
  shardings = sharding.parameter_shardings(
    transformer.logical_axes(config), shapes, sharding.make_mesh(mesh)
  )
  where = visual.stored(config, source)
  with loading.Tensors(directory) as tensors:
    params = loading.load(tensors, config, where, shapes, shardings)
  return Model(config, params)


def reference(case: str) -> dict[str, np.ndarray]:
  """What transformers says of a case."""
  with np.load(FOLDER / case / 'reference.npz') as file:
    return dict(file)


def rows_of(tokens: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
  """Rows that lie one after the other."""
  return np.split(tokens, np.cumsum(lengths)[:-1])


def padded(rows: list[np.ndarray], *, left: bool) -> types.Trajectory:
  """Rows as one batch, padded with what must not matter."""
  size = max(map(len, rows))
  tokens = np.full((len(rows), size), 5, np.int32)
  segment, position = np.zeros_like(tokens), np.zeros_like(tokens)
  for row, ids in enumerate(rows):
    place = slice(size - len(ids), size) if left else slice(len(ids))
    tokens[row, place] = ids
    segment[row, place] = 1
    position[row, place] = np.arange(len(ids))
  fields = dict.fromkeys(types.Trajectory._fields[:8], np.zeros_like(tokens))
  fields |= dict(tokens=tokens, segment=segment, position=position)
  ones = np.ones(tokens.shape, np.float32)
  return types.Trajectory(**fields, sampler_logprobs=ones, temperature=ones)


def packed_logits(model: Model, batch: types.Trajectory) -> np.ndarray:
  """Logits [N, V] of all tokens that are no padding, row after row."""
  found = _packed(model.config)(model.params, batch)
  return np.asarray(found)[batch.segment > 0]


@functools.cache
def _packed(config):
  model = transformer.Transformer(config)

  @jax.jit
  def apply(params, batch):
    context = attention.Packed(batch.segment, batch.position)
    variables = {'params': params}
    hidden, _ = model.apply(variables, batch.tokens, context)
    return model.apply(variables, hidden, method='logits')

  return apply


def gradient(model: Model, batch: types.Trajectory) -> Any:
  """Of the mean log-probability of all tokens but each row's first."""

  def mean(params):
    counted = (batch.segment > 0) & (batch.position > 0)
    outputs = transformer.outputs(model.config, params, batch)
    return jnp.sum(outputs.logprobs * counted) / jnp.sum(counted)

  return jax.jit(jax.grad(mean))(model.params)


def cached_logits(
  model: Model, rows: list[np.ndarray], chunk: int, singles: int
) -> np.ndarray:
  """Logits [N, V] through the cache of a slot, in the decode layout.

  Args:
    model: of float32 or float64.
    rows: each in a slot of its own.
    chunk: how many tokens to feed at once; divides the rest of the longest row.
    singles: how many of the last tokens of the longest row to feed one by one.
  """
  config, size = model.config, max(map(len, rows))
  shape = programs.Shape(slots=4, capacity=48, cache_block=24)
  # What a slot held before must not matter.
  caches = jax.tree.map(lambda x: x + 7, programs.empty_caches(config, shape))
  params = transformer.decode_layout(config, model.params)
  tokens = np.stack([np.pad(ids, (0, size - len(ids))) for ids in rows])
  starts = [*range(0, size - singles, chunk), *range(size - singles, size)]
  found = []
  for start, end in zip(starts, [*starts[1:], size], strict=True):
    part = tokens[:, start:end]
    position = np.broadcast_to(np.arange(start, end), part.shape)
    scores, caches = _cached(config)(params, part, position, caches)
    found.append(np.asarray(scores))
  whole = np.concatenate(found, axis=1)
  return np.concatenate(
    [scores[: len(ids)] for scores, ids in zip(whole, rows, strict=True)]
  )


@functools.cache
def _cached(config):
  model = transformer.Transformer(config, fused=True)

  @jax.jit
  def apply(params, part, position, caches):
    slot = jnp.arange(len(part), 0, -1)
    context = attention.Cached(position, slot, jnp.ones(len(part), bool))
    variables = {'params': params}
    hidden, caches = model.apply(variables, part, context, caches)
    return model.apply(variables, hidden, method='logits'), caches

  return apply


def greedy(
  model: Model, prompts: list[np.ndarray], number: int
) -> list[list[int]]:
  """What the sampler says after prompts, at temperature 0."""
  shape = programs.Shape(
    slots=len(prompts),
    capacity=96,
    cache_block=96,
    decode_block=number,
    prefill_rows=len(prompts),
    prefill_chunk=8,
  )
  sampler = sampler_lib.Sampler(model.config, shape, stop_ids=(), seed=0)
  sampler.load(model.params, 0)
  for slot, prompt in enumerate(prompts):
    sampler.open(
      slot,
      prompt.tolist(),
      draw=0,
      member=0,
      turn=0,
      temperature=0.0,
      limit_tokens=number,
    )
  said = {}
  while sampler.num_active:
    said |= {found.slot: found.tokens.tolist() for found in sampler.tick()}
  return [said[slot] for slot in range(len(prompts))]


def to_directory(source: pathlib.Path, changes: dict, target: pathlib.Path):
  """Copies config.json with changes; a change to None takes a field away."""
  config = json.loads((source / 'config.json').read_text()) | changes
  kept = {k: v for k, v in config.items() if v is not None}
  (target / 'config.json').write_text(json.dumps(kept))
