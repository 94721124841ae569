"""llama.cpp on the decoding of benchmarks/decode.py; prints a line of JSON.

Through llama-cpp-python's bindings of llama.h: as many sequences as the batch
is large in one context, prompts of 32 random tokens, 64 tokens each, drawn at
temperature 1 by llama.cpp's own sampler (which gives no log-probabilities). The
weights are those of the file, in its quantisation; --wide=True times them
written out as float32 besides. Runs in an environment of its own (see README.md
of benchmarks) and imports nothing of agentic_jax.
"""

import argparse
import json
import pathlib
import random
import tempfile
import time

import gguf
import llama_cpp

PROMPT, NEW, THREADS = 32, 64, 2


def widen(source: str, target: pathlib.Path) -> None:
  """Writes a GGUF file with all tensors in float32."""
  reader = gguf.GGUFReader(source)
  architecture = reader.fields['general.architecture']
  writer = gguf.GGUFWriter(target, architecture.contents())
  for field in reader.fields.values():
    if field.name.startswith('GGUF.') or field is architecture:
      continue
    kind, inner = field.types[0], None
    if kind == gguf.GGUFValueType.ARRAY:
      inner = field.types[-1]
    value = field.contents()
    if field.name == 'general.file_type':
      value = 0  # All float32.
    writer.add_key_value(field.name, value, kind, inner)
  for tensor in reader.tensors:
    wide = gguf.dequantize(tensor.data, tensor.tensor_type)
    writer.add_tensor(tensor.name, wide.reshape(tensor.shape[::-1].tolist()))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


class Context:
  """A context of some sequences, and what decodes and draws in it."""

  def __init__(self, model, sequences: int):
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = sequences * (PROMPT + NEW)
    settings.n_seq_max = sequences
    settings.n_batch = settings.n_ubatch = max(512, sequences)
    settings.n_threads = settings.n_threads_batch = THREADS
    self._context = llama_cpp.llama_init_from_model(model, settings)
    assert self._context, 'llama.cpp made no context.'
    self._batch = llama_cpp.llama_batch_init(sequences * PROMPT, 0, 1)
    chain = llama_cpp.llama_sampler_chain_init(
      llama_cpp.llama_sampler_chain_default_params()
    )
    llama_cpp.llama_sampler_chain_add(
      chain, llama_cpp.llama_sampler_init_dist(0)
    )
    self._chain = chain

  def forget(self) -> None:
    """Empties the cache."""
    memory = llama_cpp.llama_get_memory(self._context)
    llama_cpp.llama_memory_clear(memory, True)

  def feed(self, tokens: list[list[int]], start: int) -> list[int]:
    """Feeds each sequence its tokens; draws what comes after the last."""
    batch, count, last = self._batch, 0, []
    for sequence, ids in enumerate(tokens):
      for i, token in enumerate(ids):
        batch.token[count] = token
        batch.pos[count] = start + i
        batch.n_seq_id[count] = 1
        batch.seq_id[count][0] = sequence
        batch.logits[count] = i + 1 == len(ids)
        count += 1
      last.append(count - 1)
    batch.n_tokens = count
    failed = llama_cpp.llama_decode(self._context, batch)
    assert not failed, f'llama_decode gave {failed}.'
    return [
      llama_cpp.llama_sampler_sample(self._chain, self._context, index)
      for index in last
    ]


def decode(model, size: int, vocabulary: int, repeats: int) -> list[float]:
  """Seconds of whole calls, after one to warm up."""
  context = Context(model, size)
  seconds = []
  for _ in range(repeats + 1):
    draw = lambda: [random.randrange(vocabulary) for _ in range(PROMPT)]
    prompts = [draw() for _ in range(size)]
    began = time.perf_counter()
    context.forget()
    drawn = context.feed(prompts, 0)
    for step in range(1, NEW):
      drawn = context.feed([[token] for token in drawn], PROMPT + step - 1)
    seconds.append(time.perf_counter() - began)
  return seconds[1:]


def measure(path: str, sizes: list[int], repeats: int) -> dict:
  """Seconds by batch size."""
  settings = llama_cpp.llama_model_default_params()
  model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
  assert model, f'llama.cpp cannot read {path}.'
  words = llama_cpp.llama_model_get_vocab(model)
  vocabulary = llama_cpp.llama_vocab_n_tokens(words)
  found = {size: decode(model, size, vocabulary, repeats) for size in sizes}
  llama_cpp.llama_model_free(model)
  return found


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--model', required=True)
  parser.add_argument('--batches', default='1,16')
  parser.add_argument('--wide', default='False')
  parser.add_argument('--repeats', type=int, default=3)
  arguments = parser.parse_args()
  sizes = [int(size) for size in arguments.batches.split(',')]
  random.seed(0)
  llama_cpp.llama_backend_init()
  found = {'as it is': measure(arguments.model, sizes, arguments.repeats)}
  if arguments.wide == 'True':
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'wide.gguf'
      widen(arguments.model, path)
      found['float32'] = measure(str(path), sizes, arguments.repeats)
  versions = {'llama-cpp-python': llama_cpp.__version__}
  print(json.dumps({'versions': versions, 'decode': found}), flush=True)


if __name__ == '__main__':
  main()
