"""Parts of benchmarks/model.py and decode.py in transformers, as JSON."""

import argparse
import functools
import json
import time

import torch
import transformers

ROWS, TOKENS, PROMPT, NEW = 4, 512, 32, 64
SHAPES = {
  'bench': (
    transformers.Qwen3Config,
    dict(
      vocab_size=512,
      hidden_size=256,
      num_hidden_layers=4,
      num_attention_heads=4,
      num_key_value_heads=2,
      head_dim=64,
      intermediate_size=768,
      tie_word_embeddings=True,
    ),
  ),
  'smollm2': (
    transformers.LlamaConfig,
    dict(
      vocab_size=49152,
      hidden_size=576,
      num_hidden_layers=30,
      num_attention_heads=9,
      num_key_value_heads=3,
      intermediate_size=1536,
      tie_word_embeddings=True,
    ),
  ),
}


def wait():
  """Until the device has done all that was asked of it."""
  if torch.cuda.is_available():
    torch.cuda.synchronize()


def seconds_of(run, repeats, limit_seconds):
  """How long calls take, after one to warm up."""
  run()
  found = []
  while len(found) < repeats and (not found or sum(found) < limit_seconds):
    wait()
    began = time.perf_counter()
    run()
    wait()
    found.append(time.perf_counter() - began)
  return found


def measure(shape, attention, parts, repeats, limit_seconds, dtype, device):
  """Seconds of each part with one form of attention."""
  kind, settings = SHAPES[shape]
  torch.manual_seed(0)
  config = kind(**settings, attn_implementation=attention)
  model = transformers.AutoModelForCausalLM.from_config(config)
  model = model.to(device=device, dtype=getattr(torch, dtype))
  size = settings['vocab_size']
  ids = torch.randint(0, size, (ROWS, TOKENS), device=device)

  def forward():
    with torch.no_grad():
      return model(ids, labels=ids, use_cache=False).loss

  def step():
    model.zero_grad(set_to_none=True)
    model(ids, labels=ids, use_cache=False).loss.backward()

  def decode(rows):
    prompts = torch.randint(0, size, (rows, PROMPT), device=device)
    with torch.no_grad():
      out = model.generate(
        prompts,
        do_sample=True,
        top_k=0,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        pad_token_id=0,
      )
    assert out.shape == (rows, PROMPT + NEW), out.shape

  found = {}
  for part in parts:
    run = {'forward': forward, 'step': step}.get(part)
    if run is None:
      model.zero_grad(set_to_none=True)
      model.eval()
      run = functools.partial(decode, int(part.split()[1]))
    found[part] = seconds_of(run, repeats, limit_seconds)
  return found


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--shape', default='bench', choices=SHAPES)
  parser.add_argument('--attention', default='sdpa')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
  parser.add_argument('--parts', default='forward,step,decode 1')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--limit_seconds', type=float, default=10.0)
  arguments = parser.parse_args()
  torch.set_num_threads(2)
  found = measure(
    arguments.shape,
    arguments.attention,
    arguments.parts.split(','),
    arguments.repeats,
    arguments.limit_seconds,
    arguments.dtype,
    arguments.device,
  )
  print(json.dumps(found))


if __name__ == '__main__':
  main()
