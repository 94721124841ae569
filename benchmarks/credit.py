"""How fast credit is, against peers and against the memory's bandwidth.

Times generalised advantage estimates, discounted returns and group-relative
advantages, compiled, on batches of episodes with gaps and padding. A peer does
the same task as a user of it would: rlax under `vmap` (it knows no masks: gaps
are left in, which is less work), and a plain loop over time in torch.

The bandwidth is that of a compiled `x + y` of the size of the batch, measured
in the same run. A share of it counts the bytes that an estimator must read and
write at least once.

Command: python benchmarks/credit.py --repeats=20
"""

from collections.abc import Callable
import functools
import importlib
import statistics
import time
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages

_SHAPES = flags.DEFINE_list(
  'shapes', ['64x512', '1024x8192'], 'Episodes x tokens of each batch.'
)
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Runs; the median is reported.')
_DISCOUNT, _LAMBDA = 0.99, 0.95
_GROUP_SIZE = 8


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
  """The median time of `run`, which must not return before it is done."""
  run()
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def make_batch(num_episodes: int, size: int) -> dict[str, np.ndarray]:
  """Rewards, values [E, N] float32; a ragged mask with gaps; scores [E]."""
  rng = np.random.default_rng(0)
  shape = num_episodes, size
  lengths = rng.integers(size // 2, size + 1, (num_episodes, 1))
  return {
    'rewards': rng.normal(size=shape).astype(np.float32),
    'values': rng.normal(size=shape).astype(np.float32),
    'mask': (np.arange(size) < lengths) & (rng.random(shape) < 0.9),
    'scores': rng.integers(0, 2, num_episodes).astype(np.float32),
    'group': (np.arange(num_episodes) // _GROUP_SIZE).astype(np.int32),
  }


def gae(batch: dict[str, jax.Array]) -> advantages.Estimates:
  return advantages.gae(
    batch['rewards'],
    batch['values'],
    batch['mask'],
    discount=_DISCOUNT,
    lambda_=_LAMBDA,
  )


def returns(batch: dict[str, jax.Array]) -> jax.Array:
  return advantages.discounted_returns(
    batch['rewards'], batch['mask'], discount=_DISCOUNT
  )


def group_relative(batch: dict[str, jax.Array]) -> jax.Array:
  size = batch['scores'].shape[0]
  num_groups = -(-size // _GROUP_SIZE)
  relative = advantages.standardise(
    batch['scores'], batch['group'], num_groups=num_groups
  )
  return advantages.episodes_to_tokens(relative, batch['mask'])


# Per entry of [E, N]: float32 read and written, and the mask's byte.
_TASKS = {
  'gae': (gae, 4 * 4 + 1),
  'returns': (returns, 2 * 4 + 1),
  'group_relative': (group_relative, 4 + 1),
}


def rlax_tasks(rlax: Any) -> dict[str, Callable]:
  """The tasks over time in rlax, which has none over groups."""

  def gae_of_row(rewards, values):
    bootstrapped = jnp.append(values, 0)
    discounts = jnp.full_like(rewards, _DISCOUNT)
    found = rlax.truncated_generalized_advantage_estimation(
      rewards, discounts, _LAMBDA, bootstrapped
    )
    return found, found + values

  def returns_of_row(rewards):
    discounts = jnp.full_like(rewards, _DISCOUNT)
    return rlax.discounted_returns(rewards, discounts, jnp.zeros_like(rewards))

  return {
    'gae': lambda b: jax.vmap(gae_of_row)(b['rewards'], b['values']),
    'returns': lambda b: jax.vmap(returns_of_row)(b['rewards']),
  }


def torch_tasks(torch: Any) -> dict[str, Callable]:
  """The tasks as plain loops over time, skipping what is masked."""

  def gae_loop(batch):
    rewards, values, mask = batch['rewards'], batch['values'], batch['mask']
    ahead = running = torch.zeros(rewards.shape[0])
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
      inside = mask[:, t]
      delta = rewards[:, t] + _DISCOUNT * ahead - values[:, t]
      new = delta + _DISCOUNT * _LAMBDA * running
      running = torch.where(inside, new, running)
      ahead = torch.where(inside, values[:, t], ahead)
      found[:, t] = running
    found = torch.where(mask, found, 0.0)
    return found, torch.where(mask, found + values, 0.0)

  def returns_loop(batch):
    rewards, mask = batch['rewards'], batch['mask']
    running = torch.zeros(rewards.shape[0])
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
      new = rewards[:, t] + _DISCOUNT * running
      running = torch.where(mask[:, t], new, running)
      found[:, t] = running
    return torch.where(mask, found, 0.0)

  def group_loop(batch):
    scores, group = batch['scores'], batch['group']
    found = torch.zeros_like(scores)
    for g in range(int(group.max()) + 1):
      own = group == g
      peers = scores[own]
      if len(peers) > 1:
        found[own] = (peers - peers.mean()) / (peers.std() + 1e-6)
    return torch.where(batch['mask'], found[:, None], 0.0)

  return {
    'gae': gae_loop,
    'returns': returns_loop,
    'group_relative': group_loop,
  }


def compiled_seconds(task: Callable, batch: Any, repeats: int) -> float:
  """The median time of a jax function, compiled before."""
  compiled = jax.jit(task).lower(batch).compile()
  return median_seconds(lambda: jax.block_until_ready(compiled(batch)), repeats)


def bandwidth(x: jax.Array, y: jax.Array, repeats: int) -> float:
  """Bytes a second that a compiled `x + y` reads and writes."""
  add = jax.jit(jnp.add).lower(x, y).compile()
  seconds = median_seconds(lambda: jax.block_until_ready(add(x, y)), repeats)
  return 3 * x.nbytes / seconds


def optional(name: str) -> Any:
  """The module, or None with a word on how to have it."""
  try:
    return importlib.import_module(name)
  except ImportError:
    print(f'{name} is not here: `pip install {name}` to compare with it.')
    return None


def report(shape: str, peers: dict[str, Any], repeats: int) -> None:
  """Prints a line per estimator for batches of one shape."""
  num_episodes, size = map(int, shape.split('x'))
  host = make_batch(num_episodes, size)
  batch = jax.device_put(host)
  speed = bandwidth(batch['rewards'], batch['values'], repeats)
  print(f'\n[{num_episodes}, {size}], bandwidth {speed / 1e9:.1f} GB/s')
  print('estimator          ms   of bandwidth   rlax ms (x)     torch ms (x)')
  for name, (task, bytes_per_entry) in _TASKS.items():
    ours = compiled_seconds(task, batch, repeats)
    share = num_episodes * size * bytes_per_entry / speed / ours
    line = f'{name:14}{1e3 * ours:8.3f}   {share:12.0%}'
    theirs = {}
    if peers['rlax'] and name in (tasks := rlax_tasks(peers['rlax'])):
      theirs['rlax'] = compiled_seconds(tasks[name], batch, repeats)
    if peers['torch']:
      run = torch_tasks(peers['torch'])[name]
      tensors = {k: peers['torch'].from_numpy(v) for k, v in host.items()}
      few = min(repeats, 5)
      theirs['torch'] = median_seconds(functools.partial(run, tensors), few)
    for peer in ('rlax', 'torch'):
      if peer in theirs:
        ratio = theirs[peer] / ours
        line += f'   {1e3 * theirs[peer]:8.3f} ({ratio:5.1f})'
      else:
        line += f'   {"-":>16}'
    print(line, flush=True)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  peers = {name: optional(name) for name in ('rlax', 'torch')}
  for shape in _SHAPES.value:
    report(shape, peers, _REPEATS.value)


if __name__ == '__main__':
  app.run(main)
