"""TRL on the work of benchmarks/step.py; prints one line of JSON.

A Qwen3 of the same shape and steps of `GRPOTrainer` on the CPU, which samples
by `generate` of transformers. Runs in an environment of its own (see README.md
of benchmarks) and imports nothing of agentic_jax.
"""

import argparse
import json
import os
import tempfile
import time

os.environ['HF_HUB_OFFLINE'] = '1'

import datasets  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402

PROMPT, NEW, GROUPS, GROUP_SIZE, VOCABULARY = 32, 64, 4, 8, 512
END = VOCABULARY - 1  # Never sampled: the lengths are fixed by min_new_tokens.


def make_tokenizer(folder: str) -> transformers.PreTrainedTokenizerFast:
  """A tokenizer of bytes: a prompt of 32 letters has 32 tokens."""
  level = tokenizers.pre_tokenizers.ByteLevel
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = level(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=258,
    special_tokens=['<pad>', '<eos>'],
    initial_alphabet=level.alphabet(),
  )
  made.train_from_iterator(['a'], trainer)
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, pad_token='<pad>', eos_token='<eos>'
  )
  fast.save_pretrained(folder)
  return fast


def make_model(folder: str, positions: int = 1024) -> None:
  """The policy, saved where the trainer reads it."""
  config = transformers.Qwen3Config(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=positions,
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=END,
    pad_token_id=0,
  )
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config)
  model.save_pretrained(folder)


def train(folder: str, tokenizer, repeats: int) -> list[float]:
  """Seconds from one reward to the next, the first two left out."""
  prompts = [
    f'{i:02d} the quick brown fox jumps abc'[:PROMPT] for i in range(99)
  ]
  called = []

  def reward(completions, **_):
    called.append(time.perf_counter())
    return [float(text.count('e')) for text in completions]

  settings = trl.GRPOConfig(
    output_dir=os.path.join(folder, 'run'),
    per_device_train_batch_size=GROUPS * GROUP_SIZE,
    num_generations=GROUP_SIZE,
    max_completion_length=NEW,
    max_steps=repeats + 3,
    learning_rate=1e-5,
    logging_steps=1000,
    report_to=[],
    use_cpu=True,
    bf16=False,
    beta=0.04,
    save_strategy='no',
    temperature=1.0,
    disable_tqdm=True,
    gradient_checkpointing=False,
    generation_kwargs={'min_new_tokens': NEW},
  )
  trainer = trl.GRPOTrainer(
    model=folder,
    reward_funcs=reward,
    args=settings,
    train_dataset=datasets.Dataset.from_dict({'prompt': prompts}),
    processing_class=tokenizer,
  )
  trainer.train()
  return [b - a for a, b in zip(called, called[1:])][2:]


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--repeats', type=int, default=5)
  repeats = parser.parse_args().repeats
  transformers.logging.set_verbosity_error()
  with tempfile.TemporaryDirectory() as folder:
    tokenizer = make_tokenizer(folder)
    make_model(folder)
    steps = train(folder, tokenizer, repeats)
  versions = {'trl': trl.__version__, 'torch': torch.__version__}
  record = {'versions': versions, 'step': steps}
  print(json.dumps(record), flush=True)


if __name__ == '__main__':
  main()
