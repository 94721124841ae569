"""google-tunix on the work of step.py and decode.py; prints one line of JSON.

Its Qwen3 of the same shape, its sampler, and steps of `GRPOLearner` on its
`vanilla` engine. Runs in an environment of its own (see README.md of
benchmarks) and imports nothing of agentic_jax.
"""

import argparse
import importlib.metadata
import json
import os
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('WANDB_MODE', 'disabled')

from flax import nnx  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from tunix.generate import sampler as sampler_lib  # noqa: E402
from tunix.models.qwen3 import model as qwen3  # noqa: E402
from tunix.rl import rl_cluster  # noqa: E402
from tunix.rl.grpo import grpo_learner  # noqa: E402
from tunix.rl.rollout import base_rollout  # noqa: E402

PROMPT, NEW, GROUPS, GROUP_SIZE, VOCABULARY = 32, 64, 4, 8, 512
NO_END = [VOCABULARY + 5]  # An id that is never sampled fixes the lengths.
# The sampler puts a token before these letters.
PROMPTS = [
  f'{i:02d} the quick brown fox jumps abc'[: PROMPT - 1] for i in range(128)
]


class Characters:
  """A tokenizer whose ids are code points."""

  bos_token = ''
  eos_token = ''

  def encode(self, text, **_):
    return [min(ord(character), VOCABULARY - 1) for character in text]

  def decode(self, ids, **_):
    return ''.join(chr(max(32, int(i))) for i in ids)

  def bos_id(self):
    return 1

  def eos_id(self):
    return 2

  def pad_id(self):
    return 0


def make_model() -> tuple:
  """The policy and the mesh it lives on."""
  config = qwen3.ModelConfig(
    num_layers=4,
    vocab_size=VOCABULARY,
    embed_dim=256,
    hidden_dim=768,
    num_heads=4,
    head_dim=64,
    num_kv_heads=2,
    rope_theta=10_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
  )
  devices = np.array(jax.devices()[:1]).reshape(1, 1)
  mesh = jax.sharding.Mesh(devices, ('fsdp', 'tp'))
  with mesh:
    return qwen3.Qwen3(config, rngs=nnx.Rngs(0)), mesh


def decode(model, mesh, sizes: list[int], repeats: int) -> dict:
  """Seconds of each call of the sampler, the first left out, by batch size."""
  cache = sampler_lib.CacheConfig(
    cache_size=PROMPT + NEW, num_layers=4, num_kv_heads=2, head_dim=64
  )
  sampler = sampler_lib.Sampler(model, Characters(), cache)
  found = {}
  for size in sizes:
    seconds = []
    for seed in range(repeats + 1):
      start = time.perf_counter()
      with mesh:
        out = sampler(
          PROMPTS[:size],
          max_generation_steps=NEW,
          max_prompt_length=PROMPT,
          temperature=1.0,
          top_p=1.0,
          eos_tokens=NO_END,
          return_logprobs=True,
          seed=seed,
        )
      seconds.append(time.perf_counter() - start)
      assert sum(len(x) for x in out.tokens) == size * NEW
    found[size] = seconds[1:]
  return found


def make_cluster(model, mesh, steps: int):
  """Actor, reference and sampler, as the learner wants them."""
  roles = rl_cluster.Role
  settings = rl_cluster.ClusterConfig(
    role_to_mesh=dict.fromkeys(
      (roles.ACTOR, roles.REFERENCE, roles.ROLLOUT), mesh
    ),
    rollout_engine='vanilla',
    offload_to_cpu=False,
    training_config=rl_cluster.RLTrainingConfig(
      actor_optimizer=optax.adamw(1e-4),
      eval_every_n_steps=10**6,
      max_steps=steps,
      mini_batch_size=GROUPS,
      train_micro_batch_size=GROUPS,
      rollout_micro_batch_size=GROUPS,
      compute_logps_micro_batch_size=GROUPS,
    ),
    rollout_config=base_rollout.RolloutConfig(
      max_tokens_to_generate=NEW,
      max_prompt_length=PROMPT,
      kv_cache_size=PROMPT + NEW,
      temperature=1.0,
      top_p=1.0,
      eos_tokens=NO_END,
    ),
  )
  with mesh:
    reference = nnx.clone(model)
  return rl_cluster.RLCluster(
    actor=model,
    reference=reference,
    tokenizer=Characters(),
    cluster_config=settings,
  )


def train(model, mesh, repeats: int) -> list[float]:
  """Seconds from one generation to the next, the first two left out."""
  steps = repeats + 3
  cluster = make_cluster(model, mesh, steps)
  began, generate = [], cluster.generate

  def timed(*args, **kwargs):
    began.append(time.perf_counter())
    return generate(*args, **kwargs)

  cluster.generate = timed

  def reward(prompts, completions, **_):
    del prompts
    return [float(sum(c == 'e' for c in text)) for text in completions]

  learner = grpo_learner.GRPOLearner(
    cluster,
    reward_fns=reward,
    algo_config=grpo_learner.GRPOConfig(
      num_generations=GROUP_SIZE, num_iterations=1, beta=0.04, epsilon=0.2
    ),
  )
  batches = [{'prompts': np.array(PROMPTS[:GROUPS])} for _ in range(steps)]
  with mesh:
    learner.train(batches)
  return [b - a for a, b in zip(began, began[1:])][2:]


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument(
    '--decode', default='', help='Batch sizes: decoding in the place of steps.'
  )
  arguments = parser.parse_args()
  repeats = arguments.repeats
  model, mesh = make_model()
  record: dict = {}
  if arguments.decode:
    sizes = [int(size) for size in arguments.decode.split(',')]
    record['decode'] = decode(model, mesh, sizes, repeats)
  else:
    record['step'] = train(model, mesh, repeats)
  versions = {
    'google-tunix': importlib.metadata.version('google-tunix'),
    'jax': jax.__version__,
  }
  print(json.dumps({'versions': versions, **record}), flush=True)


if __name__ == '__main__':
  main()
