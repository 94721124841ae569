"""TRL's tool path on the work of benchmarks/rollout.py; prints a line of JSON.

`GRPOTrainer` with an `environment_factory`: 4 tasks x 8 episodes in one batch,
prompts of 32 tokens, actions of exactly 8, observations of 40. Timed is what
makes episodes of prompts (its `_generate`: generation, parsing, tools, masks),
without rewards, scoring and updates. Runs in an environment of its own (see
README.md of benchmarks) and imports nothing of agentic_jax.

What differs from our side, mostly in its favour:

* The template of the tokenizer writes a conversation as texts one after the
  other, and the parser of responses takes any action for a call of the one
  tool, so that a policy that was never trained plays on.
* Actions end at their limit; no end token is ever sampled.
* Episodes stop because the number of tool calls is limited.
* `generate` gives no log-probabilities.
* The context is prefilled again every turn.
* Now and then its parser finds no call in an action (of random bytes), and the
  episode ends early: its tokens are counted as they are, and its turns printed.
"""

import argparse
import json
import os
import tempfile
import time

import datasets
import torch
import transformers
import trl
import trl_step

ACTION, OBSERVATION = 8, 40
TEMPLATE = """
{%- for message in messages -%}
  {{- message.content or '' -}}
  {%- for call in message.tool_calls or [] -%}
    {{- call.function.name -}}
    {%- for key, value in call.function.arguments.items() -%}
      {{- key -}}{{- value -}}
    {%- endfor -%}
  {%- endfor -%}
{%- endfor -%}
"""
PARSER = {
  'defaults': {'role': 'assistant'},
  'start_anchor_pattern': r'(?s)\A.*\Z',
  'fields': {
    'tool_calls': {
      'open_pattern': r'(?=[\s\S])',
      'close_pattern': r'\Z',
      'repeats': True,
      'content': 'text',
      'transform': {
        'type': 'function',
        'function': {'name': 'tell', 'arguments': {'text': '{content}'}},
      },
    },
    'content': {'content': 'text'},
  },
}


class Talk:
  """Pays for the letter e, and answers every action with the same text."""

  def __init__(self):
    self._said = 0

  def reset(self, **kwargs) -> None:
    """Begins; the prompt is that of the task."""
    del kwargs
    self._said = 0

  def tell(self, text: str) -> str:
    """Says something to the world.

    Args:
      text: what is said.
    """
    self._said += text.count('e')
    return 'o' * OBSERVATION

  def get_reward(self) -> float:
    """How often an e was said."""
    return float(self._said)


def settings_of(folder: str, turns: int, repeats: int) -> trl.GRPOConfig:
  """A batch of all episodes a step; turns end at their limit."""
  rows = trl_step.GROUPS * trl_step.GROUP_SIZE
  return trl.GRPOConfig(
    output_dir=os.path.join(folder, 'run'),
    per_device_train_batch_size=rows,
    num_generations=trl_step.GROUP_SIZE,
    max_completion_length=turns * (ACTION + OBSERVATION),
    max_tool_calling_iterations=turns - 1,
    max_steps=repeats + 1,
    learning_rate=1e-5,
    logging_steps=1000,
    report_to=[],
    use_cpu=True,
    bf16=False,
    beta=0.0,
    save_strategy='no',
    temperature=1.0,
    disable_tqdm=True,
    gradient_checkpointing=False,
    generation_kwargs={'min_new_tokens': ACTION, 'max_new_tokens': ACTION},
  )


def play(
  folder: str, turns: int, repeats: int
) -> tuple[list[float], list[int]]:
  """Seconds, and turns of all episodes, of each batch but the first."""
  tokenizer = trl_step.make_tokenizer(folder)
  trl_step.make_model(folder, positions=2048)
  tokenizer.chat_template = TEMPLATE.strip()
  tokenizer.response_template = PARSER
  prompts = [
    f'{i:02d} the quick brown fox jumps abc'[: trl_step.PROMPT]
    for i in range(99)
  ]
  rows = [{'prompt': [{'role': 'user', 'content': x}]} for x in prompts]
  trainer = trl.GRPOTrainer(
    model=folder,
    args=settings_of(folder, turns, repeats),
    train_dataset=datasets.Dataset.from_list(rows),
    processing_class=tokenizer,
    environment_factory=Talk,
  )
  generate, seconds, played = trainer._generate, [], []

  def timed(prompts):
    began = time.perf_counter()
    found = generate(prompts)
    seconds.append(time.perf_counter() - began)
    prompt_ids, completion_ids = found[:2]
    assert {len(ids) for ids in prompt_ids} == {trl_step.PROMPT}
    each = [
      divmod(len(ids) + OBSERVATION, ACTION + OBSERVATION)
      for ids in completion_ids
    ]
    assert all(not rest and n <= turns for n, rest in each), each
    played.append(sum(n for n, _ in each))
    return found

  trainer._generate = timed
  trainer.train()
  return seconds[1:], played[1:]


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--turns', type=int, default=3)
  parser.add_argument('--repeats', type=int, default=2)
  arguments = parser.parse_args()
  transformers.logging.set_verbosity_error()
  os.environ['TRL_EXPERIMENTAL_SILENCE'] = '1'
  with tempfile.TemporaryDirectory() as folder:
    seconds, played = play(folder, arguments.turns, arguments.repeats)
  record = {
    'versions': {'trl': trl.__version__, 'torch': torch.__version__},
    'seconds': seconds,
    'turns': played,
    'tokens_per_second': [
      ACTION * n / took for n, took in zip(played, seconds)
    ],
  }
  print(json.dumps(record), flush=True)


if __name__ == '__main__':
  main()
