"""google-tunix on the work of benchmarks/rollout.py; prints one line of JSON.

Its agentic `GRPOLearner` on its own `vanilla` engine: episodes of 3 turns,
actions of 8 tokens, observations of 40, 4 tasks x 8 members, an environment
that answers after a delay. Runs in an environment of its own (see README.md of
benchmarks) and imports nothing of agentic_jax.

What differs from our side, mostly in its favour:

* The learner limits an episode's tokens but not a turn's. Its engine is wrapped
  so that every call asks for 8 tokens, which also spares it a compilation for
  each number of tokens that are left.
* Actions end at their limit, by an end token that is never sampled; the chat
  parser adds a token before each observation and two after.
* The engine answers one prompt a call and prefills the whole conversation
  again every turn.
* Members of a group that ask the same get the same sample.
* Updates are made between the batches, outside the time that is measured.
"""

import argparse
import collections
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
from tunix.models.qwen3 import model as qwen3  # noqa: E402
from tunix.rl import rl_cluster  # noqa: E402
from tunix.rl.agentic import agentic_grpo_learner  # noqa: E402
from tunix.rl.agentic.environments import base_environment  # noqa: E402
from tunix.rl.agentic.parser.chat_template_parser import parser as chat_parser  # noqa: E402
from tunix.rl.rollout import base_rollout  # noqa: E402

TASKS, MEMBERS, TURNS, VOCABULARY = 4, 8, 3, 512
ACTION, OBSERVATION, PROMPT = 8, 40, 32
# Of an episode after its prompt, with what the chat parser adds.
RESPONSE = TURNS * (ACTION + OBSERVATION + 4)
CONTEXT = 128  # Of a prompt: the whole conversation before the last action.
NO_END = [VOCABULARY + 5]
BEGAN: dict = collections.defaultdict(list)
ENDED: dict = collections.defaultdict(list)


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


class Parser(chat_parser.BaseChatTemplateParser):
  """The shortest chat template that the learner accepts."""

  def _init_tokens(self):
    return chat_parser.TokenConfig(
      eot_token='\n', system_token='', user_token='U', assistant_token='A'
    )

  def _init_generation_prompt(self):
    return 'A'

  @property
  def assistant_token(self):
    return 'A'

  def update_assistant_end_tokens(self, tokens):
    return np.array(tokens), 0


class Talk(base_environment.BaseTaskEnv):
  """Pays for the letter e, and answers every action with the same text."""

  delay_seconds = 0.0

  def __init__(self, example, **settings):
    super().__init__(task=dict(example), max_steps=TURNS, **settings)

  def _initial_observation(self):
    # Groups are numbered over the run, TASKS to a batch.
    batch = self.extra_kwargs['group_id'] // TASKS
    BEGAN[batch].append(time.perf_counter())
    return self.task

  def _step_impl(self, action):
    if self.delay_seconds:
      time.sleep(self.delay_seconds)
    text = getattr(action, 'action', action)
    if self.step_count + 1 >= TURNS:
      batch = self.extra_kwargs['group_id'] // TASKS
      ENDED[batch].append(time.perf_counter())
    return base_environment.EnvStepResult(
      observation='o' * (OBSERVATION - 2),
      reward=float(str(text).count('e')),
      done=False,
      info={},
    )


def make_cluster(steps: int):
  """Actor and sampler, as the learner wants them."""
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
    model = qwen3.Qwen3(config, rngs=nnx.Rngs(0))
    reference = nnx.clone(model)
  roles = rl_cluster.Role
  settings = rl_cluster.ClusterConfig(
    role_to_mesh=dict.fromkeys(
      (roles.ACTOR, roles.REFERENCE, roles.ROLLOUT), mesh
    ),
    rollout_engine='vanilla',
    offload_to_cpu=False,
    training_config=rl_cluster.RLTrainingConfig(
      actor_optimizer=optax.adamw(1e-5),
      eval_every_n_steps=10**6,
      max_steps=steps,
      mini_batch_size=TASKS,
      train_micro_batch_size=TASKS,
    ),
    rollout_config=base_rollout.RolloutConfig(
      max_tokens_to_generate=RESPONSE,
      max_prompt_length=CONTEXT,
      kv_cache_size=CONTEXT + RESPONSE,
      temperature=1.0,
      top_p=1.0,
      eos_tokens=NO_END,
      return_logprobs=True,
    ),
  )
  cluster = rl_cluster.RLCluster(
    actor=model,
    reference=reference,
    tokenizer=Characters(),
    cluster_config=settings,
  )
  return cluster, mesh


def play(repeats: int, concurrency: int) -> tuple[list[float], int]:
  """Seconds from the first reset of a batch to its last answer.

  The first batch is left out: it compiles.

  Returns:
    The seconds, and the tokens that were sampled in all.
  """
  steps = repeats + 1
  cluster, mesh = make_cluster(steps)
  generate, sampled = cluster.generate, []

  def limited(*args, **kwargs):
    kwargs['max_generation_steps'] = ACTION
    result = generate(*args, **kwargs)
    sampled.append(sum(len(tokens) for tokens in result.tokens))
    return result

  cluster.generate = limited
  learner = agentic_grpo_learner.GRPOLearner(
    cluster,
    algo_config=agentic_grpo_learner.GRPOConfig(
      num_generations=MEMBERS,
      num_iterations=1,
      beta=0.0,
      max_response_length=RESPONSE,
      max_concurrency=concurrency,
    ),
    reward_fns=None,
    chat_parser=Parser(Characters()),
    env_class=Talk,
  )
  text = 'the quick brown fox jumps over the lazy'
  batches = [
    {
      'prompts': np.array(
        [f'{i:02d}{j} {text}'[: PROMPT - 3] for j in range(TASKS)]
      )
    }
    for i in range(steps)
  ]
  with mesh:
    learner.train(batches)
  seconds = [max(ENDED[i]) - min(BEGAN[i]) for i in range(1, steps)]
  return seconds, sum(sampled) // steps


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--delay_seconds', type=float, default=0.0)
  parser.add_argument('--concurrency', type=int, default=TASKS * MEMBERS)
  flags = parser.parse_args()
  Talk.delay_seconds = flags.delay_seconds
  seconds, sampled = play(flags.repeats, flags.concurrency)
  record = {
    'versions': {
      'google-tunix': importlib.metadata.version('google-tunix'),
      'jax': jax.__version__,
    },
    'seconds': seconds,
    'sampled_tokens': sampled,
  }
  print(json.dumps(record), flush=True)


if __name__ == '__main__':
  main()
