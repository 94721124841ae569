"""How fast the transformer is, alone.

Forward, and forward and backward (the mean log-probability of 4 rows of 512
tokens, all parameters), at the shape of SmolLM2-135M and at that of
benchmarks/step.py, in --dtype, against `transformers` in torch on the same
machine: eager and sdpa attention, the faster of the two. Decoding is in
benchmarks/decode.py.

A product of 2048-cubed in --dtype is timed in the same run; the share of its
rate that a training step reaches counts the FLOPs of the model (causal
attention by half). Where the rest goes is told by timing gradients of the parts
alone (`apart`).

A part is called --repeats times after one call to warm up, and no more once it
took --limit_seconds; peers alike, in a process for each form of attention.

Command: python benchmarks/model.py --transformers_python=PATH
  (--shapes=smollm2 is the long half)
"""

import functools
import statistics
from typing import Any, NamedTuple

from absl import app
from absl import flags
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import block
from agentic_jax.models import causal
from agentic_jax.models import chunks
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from benchmarks import common

_PEER = flags.DEFINE_string(
  'transformers_python', '', 'The Python with torch and transformers.'
)
_SHAPES = flags.DEFINE_list('shapes', ['bench', 'smollm2'], 'Which models.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Calls timed.', lower_bound=1)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Ours, and that of transformers.'
)
_REMAT = flags.DEFINE_string('remat', '', 'What a block keeps; see its config.')
_PARTS = flags.DEFINE_list('parts', ['forward', 'step'], 'Of these.')
_LIMIT_SECONDS = flags.DEFINE_float(
  'limit_seconds', 10.0, 'Of all timed calls of a part; one is always made.'
)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

ROWS, TOKENS = 4, 512


def config_of(name: str, **settings: Any) -> config_lib.TransformerConfig:
  """The configuration of a shape of this benchmark."""
  if name == 'bench':
    vocabulary = settings.pop('vocab_size', common.VOCABULARY)
    return sizes.load('bench', vocabulary, **settings)
  shape: dict[str, Any] = dict(
    vocab_size=49152,
    width=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp_width=1536,
    rope=config_lib.Rope(theta=100_000.0),
    norm_epsilon=1e-5,
  )
  return config_lib.TransformerConfig(**shape | settings)


def batch(vocab: int, rows: int, tokens: int) -> types.Trajectory:
  """Rows of one segment each; all tokens count."""
  rng = np.random.default_rng(0)
  shape = (rows, tokens)
  ones, zeros = np.ones(shape, np.int32), np.zeros(shape, np.int32)
  return types.Trajectory(
    tokens=rng.integers(0, vocab, shape).astype(np.int32),
    action_mask=np.ones(shape, bool),
    turn=zeros,
    role=zeros.astype(np.int8),
    segment=ones,
    position=np.broadcast_to(np.arange(tokens, dtype=np.int32), shape),
    episode=zeros,
    policy_step=zeros,
    sampler_logprobs=np.zeros(shape, np.float32),
    temperature=np.ones(shape, np.float32),
  )


def loss(config, params, trajectory):
  """The mean log-probability, and nothing else."""
  return -jnp.mean(transformer.outputs(config, params, trajectory).logprobs)


class Flops(NamedTuple):
  """Of a forward pass; products of parameters, and half of causal attention."""

  projections: float  # To queries, keys and values, and back.
  attention: float
  mlp: float
  vocabulary: float

  @classmethod
  def of(cls, c: config_lib.TransformerConfig, tokens: int) -> 'Flops':
    """Of all rows of this many tokens."""
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    of_layers = 2.0 * ROWS * tokens * c.layers
    return cls(
      projections=of_layers * c.width * (2 * queries + 2 * keys),
      attention=of_layers * tokens * queries,  # q k and weights v, by half.
      mlp=of_layers * 3 * c.width * c.mlp_width,
      vocabulary=2.0 * ROWS * tokens * c.width * c.vocab_size,
    )


def seconds_of(run) -> list[float]:
  """As the flags say."""
  return common.seconds_of(
    run, _REPEATS.value, limit_seconds=_LIMIT_SECONDS.value
  )


def ours(name: str) -> dict[str, list[float]]:
  """Seconds of each part."""
  config = config_of(name, remat=_REMAT.value, dtype=_DTYPE.value)
  params = transformer.init(config, jax.random.key(0))
  trajectory = jax.device_put(batch(config.vocab_size, ROWS, TOKENS))
  of_loss = functools.partial(loss, config)
  found = {}
  if 'forward' in _PARTS.value:
    forward = jax.jit(of_loss)
    found['forward'] = seconds_of(lambda: forward(params, trajectory))
  if 'step' in _PARTS.value:
    both = jax.jit(jax.grad(of_loss))
    found['step'] = seconds_of(lambda: both(params, trajectory))
  return found


def _gradient_seconds(function, *arguments) -> float:
  """The median of the value and the gradient for all arguments."""
  # Random, lest products with ones become sums.
  slope = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(1), x.shape, x.dtype),
    jax.eval_shape(function, *arguments),
  )

  @jax.jit
  def both(arguments, slope):
    value, pull = jax.vjp(function, *arguments)
    return value, pull(slope)

  return statistics.median(seconds_of(lambda: both(arguments, slope)))


def _vocabulary_seconds(config, random) -> float:
  trajectory = batch(config.vocab_size, ROWS, TOKENS)

  def logprobs(hidden, matrix):
    score = lambda x: block.matmul(x, matrix.T, jnp.float32)
    return chunks.read(score, hidden, trajectory)[0]

  hidden = random(ROWS, TOKENS, config.width)
  return _gradient_seconds(
    logprobs, hidden, random(config.vocab_size, config.width)
  )


def _layer_seconds(config, random) -> float:
  """A whole block: norms, rotation and residuals besides."""
  zeros = jnp.zeros((ROWS, TOKENS), jnp.int32)
  position = zeros + jnp.arange(TOKENS)
  context = attention.Packed(zeros + 1, position)
  rotation = attention.rotary(
    position, config.head_dim, config.rope, config.dtype
  )
  rest = (None, None, None, context, [rotation])
  x, layer = random(ROWS, TOKENS, config.width), block.Block(config)
  params = nn.unbox(layer.init(jax.random.key(0), x, *rest))
  return _gradient_seconds(lambda p, x: layer.apply(p, x, *rest)[0], params, x)


def apart(config: config_lib.TransformerConfig) -> dict[str, float]:
  """Seconds of the gradient of each part alone, of all layers together."""
  keys = iter(jax.random.split(jax.random.key(0), 32))
  random = lambda *shape: jax.random.normal(next(keys), shape)
  c, rows = config, (ROWS, TOKENS)
  queries, values = c.heads * c.head_dim, c.kv_heads * c.head_dim
  x = random(*rows, c.width)
  form = attention.Form(c.head_dim**-0.5, 0.0, 0)
  segment = jnp.ones(rows, jnp.int32)
  core = lambda q, k, v: causal.pieces(form, q, k, v, segment)

  def project(x, mixed, query, key, value, output):
    ends = [block.matmul(x, m) for m in (query, key, value)]
    return *ends, block.matmul(mixed, output)

  def gated(x, gate, up, down):
    hidden = nn.silu(block.matmul(x, gate)) * block.matmul(x, up)
    return block.matmul(hidden, down)

  heads = lambda number: random(*rows, number, c.head_dim)
  into = [random(c.width, n) for n in (queries, values, values)]
  wide = [random(c.width, c.mlp_width) for _ in range(2)]
  each = {
    'projections': _gradient_seconds(
      project, x, random(*rows, queries), *into, random(queries, c.width)
    ),
    'attention': _gradient_seconds(
      core, heads(c.heads), heads(c.kv_heads), heads(c.kv_heads)
    ),
    'mlp': _gradient_seconds(gated, x, *wide, random(c.mlp_width, c.width)),
  }
  layer = _layer_seconds(c, random)
  each['norms, rotation, residuals'] = layer - sum(each.values())
  found = {name: c.layers * seconds for name, seconds in each.items()}
  return found | {'vocabulary': _vocabulary_seconds(c, random)}


def show_apart(name: str, step: float, rate: float) -> dict[str, float]:
  """Prints where a training step goes; returns it too.

  Args:
    name: of the shape.
    step: seconds of a training step.
    rate: FLOP/s of a large product.
  """
  config = config_of(name, remat=_REMAT.value, dtype=_DTYPE.value)
  parts = apart(config)
  parts['all else'] = step - sum(parts.values())
  flops = Flops.of(config, TOKENS)._asdict()
  rows = []
  for part, seconds in parts.items():
    of_part = 3 * flops.get(part, 0.0)
    lost = seconds - of_part / rate
    row = [part, f'{seconds:.3f}', f'{seconds / step:.0%}', f'{lost:.3f}']
    reached = f'{of_part / seconds / rate:.0%}' if of_part else ''
    rows.append([*row, reached])
  header = [f'step of {name}', 's', 'share', 'above the rate, s', 'of the rate']
  print(common.table(header, rows), flush=True)
  return parts


def peers(name: str) -> dict[str, dict[str, list[float]]]:
  """What transformers takes, by its form of attention."""
  if not _PEER.value:
    return {}
  return {
    form: common.run_peer(
      _PEER.value,
      'transformers_model.py',
      f'--shape={name}',
      f'--attention={form}',
      f'--dtype={_DTYPE.value}',
      f'--device={common.torch_device()}',
      f'--repeats={_REPEATS.value}',
      f'--limit_seconds={_LIMIT_SECONDS.value}',
      f'--parts={",".join(_PARTS.value)}',
    )
    for form in ('sdpa', 'eager')
  }


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments wanted, got {argv[1:]}; use flags.')
  train.keep_freed_memory()
  rate = common.matmul_rate(_REPEATS.value, _DTYPE.value)
  print(
    f'A 2048-cubed product in {_DTYPE.value}: {rate / 1e9:.0f} GFLOP/s.',
    flush=True,
  )
  results = {}
  for name in _SHAPES.value:
    mine, theirs = ours(name), peers(name)
    results[name] = {'ours': mine, 'transformers': theirs}
    rows = []
    for part, seconds in mine.items():
      own = statistics.median(seconds)
      best = min(
        (statistics.median(x[part]) for x in theirs.values()), default=0
      )
      ratio = f'{best / own:.2f}' if best else ''
      rows.append([part, f'{own:.3f}', f'{best:.3f}', ratio, len(seconds)])
    header = [name, 'ours, s', 'transformers, s', 'times', 'calls']
    print(common.table(header, rows), flush=True)
    if 'step' in mine:
      step = statistics.median(mine['step'])
      reached = 3 * sum(Flops.of(config_of(name), TOKENS)) / step / rate
      print(f'A step reaches {reached:.0%} of the rate of that product.')
      results[name]['apart'] = show_apart(name, step, rate)
  common.save(_OUTPUT.value, {'machine': common.machine(), 'results': results})


if __name__ == '__main__':
  app.run(main)
