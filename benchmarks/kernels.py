"""Attention of training on an accelerator: its kernel against plain products.

Rows hold three segments each. For the value and for the gradient with respect
to queries, keys and values it prints how far each kernel is from `pieces` in
float32 at highest precision, |x - reference| / |reference|, and how long the
gradient takes (it computes the value, too). The kernel of the platform is that
which `causal.choose` takes; on a CPU, and for rows of more than 2,048 tokens,
there is `pieces` alone.

Command: python benchmarks/kernels.py
"""

from collections.abc import Callable
import functools
import statistics

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import attention
from agentic_jax.models import causal
from agentic_jax.models import sizes
from benchmarks import common

_ROWS = flags.DEFINE_integer('rows', 8, 'Rows.', lower_bound=1)
_TOKENS = flags.DEFINE_list('tokens', ['512', '1024', '2048'], 'T of a row.')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'Calls.', lower_bound=1)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

# Those of SmolLM2-135M.
_HEADS, _KV_HEADS, _HEAD_DIM = 9, 3, 64


def inputs(rows: int, tokens: int) -> tuple[list[jax.Array], jax.Array]:
  """Queries, keys, values and a slope [rows, tokens, ...]; segments."""
  rng = np.random.default_rng(0)
  heads = (_HEADS, _KV_HEADS, _KV_HEADS, _HEADS)
  arrays = [
    jnp.asarray(rng.normal(size=(rows, tokens, n, _HEAD_DIM)), jnp.bfloat16)
    for n in heads
  ]
  segment = 1 + (np.arange(tokens) * 3 // tokens)
  return arrays, jnp.asarray(np.tile(segment, (rows, 1)), jnp.int32)


def gradient(
  kernel: str, form: attention.Form, segment: jax.Array
) -> Callable[..., tuple[jax.Array, ...]]:
  """A compiled function of q, k, v and a slope: value and three gradients."""

  @jax.jit
  def both(q, k, v, slope):
    run = functools.partial(causal.KERNELS[kernel], form, segment=segment)
    value, pull = jax.vjp(run, q, k, v)
    return value, *pull(slope)

  return both


def measure(tokens: int) -> dict[str, dict[str, float]]:
  """Errors and seconds by kernel, of rows this long."""
  arrays, segment = inputs(_ROWS.value, tokens)
  form = attention.Form(_HEAD_DIM**-0.5, 0.0, 0)
  with jax.default_matmul_precision('highest'):
    wide = [x.astype(jnp.float32) for x in arrays]
    reference = gradient('pieces', form, segment)(*wide)
  config = sizes.load('bench', 8, head_dim=_HEAD_DIM, dtype='bfloat16')
  kernels = ['pieces', causal.chosen(config, tokens).kernel]
  found = {}
  for kernel in dict.fromkeys(kernels):
    run = functools.partial(gradient(kernel, form, segment), *arrays)
    parts = zip(('value', 'dq', 'dk', 'dv'), run(), reference)
    found[kernel] = {
      name: float(
        jnp.linalg.norm(x.astype(jnp.float32) - y) / jnp.linalg.norm(y)
      )
      for name, x, y in parts
    }
    seconds = common.seconds_of(run, _REPEATS.value)
    found[kernel]['ms'] = 1e3 * statistics.median(seconds)
  return found


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  results = {int(tokens): measure(int(tokens)) for tokens in _TOKENS.value}
  rows = [
    [f'{kernel}, {tokens}', *(f'{number:.2g}' for number in own.values())]
    for tokens, found in results.items()
    for kernel, own in found.items()
  ]
  header = ['kernel, tokens', 'value', 'dq', 'dk', 'dv', 'ms']
  print(f'{jax.devices()[0].device_kind}\n{common.table(header, rows)}')
  common.save(_OUTPUT.value, {'machine': common.machine(), 'results': results})


if __name__ == '__main__':
  app.run(main)
