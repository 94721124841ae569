"""Writes a policy as a directory that transformers and others load.

  python experiments/export.py --init_from=runs/quickstart --to=exported
  python experiments/export.py --model=smollm2-135m --to=exported
  python experiments/export.py --model='smollm2-135m?adapter=DIR' --to=exported

Of a run it is the last checkpoint. A run that began with a published model is
written as that model is, with its tokenizer and chat template; a fresh one as
Llama, or Qwen3 where its heads are normalised. Adapters are added to their
base; --adapter writes them alone.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax.models import heads
from agentic_jax.models import pretrained
from experiments import common
from experiments import policies
from experiments import run_config

FLAGS = flags.FLAGS

flags.DEFINE_string('to', '', 'Directory to write; must not be there yet.')
flags.DEFINE_bool(
  'adapter', False, 'Write the adapters alone, in the form that PEFT reads.'
)


def main() -> None:
  """Writes the directory."""
  directory = pathlib.Path(FLAGS.to)
  if not FLAGS.to or directory.exists():
    raise ValueError(
      f'--to={FLAGS.to!r} wants the name of a directory that is not there yet.'
    )
  positions = 0
  if FLAGS.init_from:
    limits = run_config.restore_flags(pathlib.Path(FLAGS.init_from))
    positions = limits.segment_tokens
  elif not FLAGS['model'].present:
    raise ValueError('Name a run by --init_from, or a published --model.')
  published = policies.find(FLAGS.model)
  words = policies.tokenizer_of(FLAGS.tokenizer, published, ())
  config = policies.configure(
    FLAGS.model, published, words, positions=positions, dtype=FLAGS.dtype
  )
  params = _params(published, config)
  if FLAGS.adapter:
    _export_adapter(directory, params, config, published)
    return
  pretrained.export(
    directory,
    pretrained.merged(config, params),
    dataclasses.replace(config, lora=None),
    source=published and FLAGS.model.partition('?')[0],
    words=_written(words),
  )
  print(f'Wrote {directory}.')
  if isinstance(words, tokenizer.ByteTokenizer):
    print('It has no tokenizer: ids 0 to 255 are bytes, special tokens follow.')


def _export_adapter(directory, params, config, published) -> None:
  """Writes the adapters alone, for who has the base model."""
  if published is None:
    raise ValueError(
      f'--adapter writes what stands beside a published model, and '
      f'--model={FLAGS.model!r} is a size; export it whole, without --adapter.'
    )
  family = published.described['model_type']
  pretrained.export_adapter(
    directory, params, config, model_type=family, base=str(published.path)
  )
  print(f'Wrote the adapters of {published.path} to {directory}.')


def _params(published: pretrained.Published | None, config: Any) -> Any:
  """The parameters to write: those of a policy, without heads.

  No published model has a place for them, nor for a trunk of their own.
  """
  if FLAGS.init_from:
    params = policies.of_run(FLAGS.init_from, config)
    kept = heads.strip(params)
    if left := sorted(params.keys() - kept.keys()):
      print(f'Left out, as no published model has them: {", ".join(left)}.')
    return kept
  if published is None:
    raise ValueError(
      f'--model={FLAGS.model!r} is a size, and a fresh model is not worth '
      'writing. Name a run by --init_from, or a published model.'
    )
  policies.refuse_untrained(FLAGS.model, published, config)
  return pretrained.load(published, config, sharding.make_mesh(FLAGS.mesh))


def _written(words: tokenizer.Tokenizer) -> tokenizer.Source | None:
  """The tokenizer that --tokenizer puts in the place of the model's."""
  if not FLAGS.tokenizer or isinstance(words, tokenizer.ByteTokenizer):
    return None
  return tokenizer.read(FLAGS.tokenizer)


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.main(main)
