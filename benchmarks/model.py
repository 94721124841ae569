"""How fast the transformer is, alone, and what it holds in memory.

Forward, forward and backward (the mean log-probability of 4 rows of 512 tokens,
all parameters), at the shape of SmolLM2-135M and at that of benchmarks/step.py,
in float32, against `transformers` in torch on the same machine: eager and sdpa
attention, the faster of the two. Decoding is timed by benchmarks/decode.py.

A product of 2048-cubed is timed in the same run; the share of its rate that a
training step reaches counts the FLOPs of the model (causal attention by half).
--memory compiles the gradient at growing lengths and vocabularies and prints
what the compiler plans for temporaries: linear in T, and free of V beyond the
chunk of tokens whose logits are held; --output draws it too.

Command: python benchmarks/model.py --transformers_python=PATH
"""

import functools
import pathlib
import statistics
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from benchmarks import common
from benchmarks import drawing

_PEER = flags.DEFINE_string(
  'transformers_python', '', 'The Python with torch and transformers.'
)
_SHAPES = flags.DEFINE_list('shapes', ['bench', 'smollm2'], 'Which models.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Calls timed.', lower_bound=1)
_REMAT = flags.DEFINE_string('remat', '', 'What a block keeps; see its config.')
_MEMORY = flags.DEFINE_bool('memory', False, 'Print plans of memory instead.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

ROWS, TOKENS = 4, 512
LENGTHS, VOCABULARIES = (512, 2048, 8192), (512, 8192, 49152)


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


def flops(
  config: config_lib.TransformerConfig, rows: int, tokens: int
) -> float:
  """Of a forward pass: products of parameters, and half of causal attention."""
  queries = config.heads * config.head_dim
  keys = config.kv_heads * config.head_dim
  block = config.width * (2 * queries + 2 * keys + 3 * config.mlp_width)
  matrices = config.layers * block + config.width * config.vocab_size
  scores = config.layers * tokens * queries  # q k and weights v, by half.
  return 2.0 * rows * tokens * (matrices + scores)


def ours(name: str, repeats: int) -> dict[str, Any]:
  """Seconds of each part."""
  config = config_of(name, remat=_REMAT.value)
  params = transformer.init(config, jax.random.key(0))
  trajectory = jax.device_put(batch(config.vocab_size, ROWS, TOKENS))
  forward = jax.jit(functools.partial(loss, config))
  both = jax.jit(jax.grad(functools.partial(loss, config)))
  found = {
    'forward': common.seconds_of(lambda: forward(params, trajectory), repeats),
    'step': common.seconds_of(lambda: both(params, trajectory), repeats),
  }
  return found


def planned(tokens: int, vocab: int) -> dict[str, int]:
  """Bytes of the gradient of one row, as the compiler plans them."""
  config = config_of('bench', remat='block', vocab_size=vocab)
  init = functools.partial(transformer.init, config)
  shapes = jax.eval_shape(init, jax.random.key(0))
  grad = jax.jit(jax.grad(functools.partial(loss, config)))
  compiled = grad.lower(shapes, batch(vocab, 1, tokens)).compile()
  return {
    'tokens': tokens,
    'vocabulary': vocab,
    'temporaries': compiled.memory_analysis().temp_size_in_bytes,
    'parameters': sum(4 * x.size for x in jax.tree.leaves(shapes)),
  }


def memory(output: str) -> None:
  """Prints the temporaries of a gradient, by length and by vocabulary.

  Args:
    output: where to write them as JSON, with a picture beside it; '' is
      nowhere.
  """
  by_length = [planned(tokens, 512) for tokens in LENGTHS]
  by_vocabulary = [planned(LENGTHS[0], vocab) for vocab in VOCABULARIES]
  rows = [
    [
      f'{found["tokens"]}',
      f'{found["vocabulary"]}',
      f'{found["temporaries"] / 1e6:.0f}',
      f'{found["parameters"] / 1e6:.0f}',
    ]
    for found in by_length + by_vocabulary[1:]
  ]
  header = ['T', 'V', 'temporaries, MB', 'parameters, MB']
  print(common.table(header, rows))
  common.save(output, {'machine': common.machine(), 'memory': rows})
  if not output:
    return
  points = lambda found, key: [(x[key], x['temporaries'] / 1e6) for x in found]
  panel = functools.partial(
    drawing.Panel, y_label='temporaries of a gradient, MB', guide=1.0
  )
  picture = pathlib.Path(output).with_suffix('.svg')
  picture.write_text(
    drawing.svg(
      [
        panel(
          f'By length, V = {VOCABULARIES[0]}',
          'T, tokens of a row (dashed: linear)',
          points=points(by_length, 'tokens'),
        ),
        panel(
          f'By vocabulary, T = {LENGTHS[0]}',
          'V (dashed: linear)',
          points=points(by_vocabulary, 'vocabulary'),
        ),
      ]
    )
  )
  print(f'Drawn in {picture}.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments wanted, got {argv[1:]}; use flags.')
  train.keep_freed_memory()
  if _MEMORY.value:
    memory(_OUTPUT.value)
    return
  rate = common.matmul_rate(_REPEATS.value)
  rows, results = [], {}
  for name in _SHAPES.value:
    mine = ours(name, _REPEATS.value)
    theirs = {}
    if _PEER.value:
      theirs = common.run_peer(
        _PEER.value,
        'transformers_model.py',
        f'--shape={name}',
        '--parts=forward,step',
        f'--repeats={_REPEATS.value}',
      )
    results[name] = {'ours': mine, 'transformers': theirs}
    for part, seconds in mine.items():
      own = statistics.median(seconds)
      best = min(
        (statistics.median(theirs[k][part]) for k in theirs), default=0
      )
      ratio = f'{best / own:.2f}' if best else ''
      rows.append([name, part, f'{own:.3f}', f'{best:.3f}', ratio])
    step = 3 * flops(config_of(name), ROWS, TOKENS)
    share = step / statistics.median(mine['step']) / rate
    rows.append([name, 'share of the product rate', f'{share:.0%}', '', ''])
  header = ['shape', 'part', 'ours, s', 'transformers, s', 'times']
  print(common.table(header, rows), flush=True)
  print(f'A 2048-cubed product: {rate / 1e9:.0f} GFLOP/s.')
  common.save(_OUTPUT.value, {'machine': common.machine(), 'results': results})


if __name__ == '__main__':
  app.run(main)
