"""What config.json says, in old and new spelling; what is refused by name."""

import pytest

from agentic_jax import types
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from tests import pretrained_cases as cases


def _config(case):
  return loading.read_json(cases.FOLDER / case / 'config.json')


def _read(case, *without, **changes):
  source = _config(case)
  kept = {k: v for k, v in source.items() if k not in without}
  return families.read(kept | changes, positions=cases.POSITIONS)


_NEW = ('rope_parameters', 'layer_types')


@pytest.mark.parametrize(
  'case, old',
  [
    (
      'llama3.narrow',
      dict(
        rope_theta=500_000.0,
        rope_scaling=dict(
          rope_type='llama3',
          factor=8.0,
          low_freq_factor=1.0,
          high_freq_factor=4.0,
          original_max_position_embeddings=16,
        ),
      ),
    ),
    ('smollm2.narrow', dict(rope_theta=100_000.0, rope_scaling=None)),
    (
      'qwen2_yarn.narrow',
      dict(
        rope_theta=10_000.0,
        rope_scaling=dict(
          type='yarn', factor=4.0, original_max_position_embeddings=16
        ),
      ),
    ),
    ('qwen2.deep', dict(use_sliding_window=True, max_window_layers=1)),
    ('gemma2.narrow', {}),
    (
      'gemma3.narrow',
      dict(
        sliding_window_pattern=2,
        rope_theta=1e6,
        rope_local_base_freq=10_000.0,
        rope_scaling=dict(rope_type='linear', factor=8.0),
      ),
    ),
    (
      'phi3_long.narrow',
      dict(
        original_max_position_embeddings=16,
        rope_scaling=dict(
          type='su', short_factor=[1.0, 1.3], long_factor=[1.5, 4.0]
        ),
      ),
    ),
  ],
)
def test_old_spelling_means_the_same(case, old):
  assert _read(case, *_NEW, '_sliding_window_pattern', **old) == _read(case)


def test_windows():
  assert _read('mistral.narrow').windows == (7, 7)
  assert _read('qwen2.narrow').windows == ()
  assert _read('qwen2.deep').windows == (0, 7, 7)
  assert _read('gemma2.deep').windows == (7, 0, 7)
  assert _read('gemma3.deep').windows == (0, 7, 7)
  # By the pattern of five and one, where nothing else is said.
  gemma = _read('gemma3.deep', 'layer_types', num_hidden_layers=7)
  assert gemma.windows == (7, 7, 7, 7, 7, 0, 7)


def test_null_says_that_there_is_none():
  """And leaving a field out, that it is as usual in the family."""
  assert _read('mistral.narrow', sliding_window=None).windows == ()
  assert _read('mistral.narrow', 'sliding_window').windows == (4096, 4096)
  both = ('attn_logit_softcapping', 'final_logit_softcapping')
  off = _read('gemma2.narrow', **dict.fromkeys(both))
  assert (off.score_cap, off.logit_cap) == (0, 0)
  usual = _read('gemma2.narrow', *both)
  assert (usual.score_cap, usual.logit_cap) == (50, 30)
  for name in ('head_dim', 'rope_scaling', 'partial_rotary_factor'):
    assert _read('llama2.narrow', **{name: None}) == _read('llama2.narrow')


def test_settings_of_the_run_win():
  source = _config('llama2.narrow')
  heads = types.Heads(value=types.ValueHead())
  made = families.read(source, dtype='bfloat16', output_heads=heads)
  assert made.dtype == 'bfloat16' and made.output_heads == heads


@pytest.mark.parametrize(
  'changes, text',
  [
    (dict(model_type='gpt_neox'), "'gpt_neox'.*it knows .*'llama'.*families"),
    (dict(model_type=None), 'model_type=None, which is no family'),
    (dict(quantization_config={'bits': 4}), 'quantization_config=.*remove the'),
    (dict(clip_qkv=8.0), "clip_qkv=8.0.*of the family 'mistral'"),
    (dict(use_sliding_window=True), 'use_sliding_window=True'),
    (dict(sliding_window_size=8), 'sliding_window_size=8.*remove the field'),
    (dict(layer_types=['full_attention']), 'of 1 layers.*num_hidden_layers=2'),
    (dict(layer_types=['full_attention'] * 3), 'of 3 layers and num_hidden_'),
    (dict(hidden_act='relu'), "activation 'relu'; there are .*'silu'"),
    (dict(layer_types=['chunked_attention'] * 2), 'chunked_attention.*known'),
    (
      dict(rope_parameters=dict(rope_type='dynamic', factor=2.0)),
      "of the type 'dynamic'; there are",
    ),
    (
      dict(rope_parameters=dict(rope_type='yarn', factor=2.0)),
      "'yarn', which need 'original_max_position_embeddings'",
    ),
    (dict(hidden_size=None, vocab_size=None), 'lacks hidden_size, vocab_size'),
  ],
)
def test_refused_by_name(changes, text):
  with pytest.raises(ValueError, match=text):
    _read('mistral.narrow', **changes)


def test_what_is_off_is_not_refused():
  off = dict(clip_qkv=None, use_mystery=False, layers_of_mystery=[])
  assert _read('llama2.narrow', **off) == _read('llama2.narrow')


# Of SmolLM2-135M-Instruct: with fields that no fixture has, since
# `transformers` drops them when it writes a configuration anew.
_SMOLLM2 = {
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'bos_token_id': 1,
  'eos_token_id': 2,
  'hidden_act': 'silu',
  'hidden_size': 576,
  'initializer_range': 0.041666666666666664,
  'intermediate_size': 1536,
  'is_llama_config': True,
  'max_position_embeddings': 8192,
  'mlp_bias': False,
  'model_type': 'llama',
  'num_attention_heads': 9,
  'num_hidden_layers': 30,
  'num_key_value_heads': 3,
  'pad_token_id': 2,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_interleaved': False,
  'rope_scaling': None,
  'rope_theta': 100000,
  'tie_word_embeddings': True,
  'torch_dtype': 'bfloat16',
  'transformers.js_config': {
    'kv_cache_dtype': {'q4f16': 'float16', 'fp16': 'float16'}
  },
  'transformers_version': '4.42.3',
  'use_cache': True,
  'vocab_size': 49152,
}


def test_a_published_config_is_read():
  made = families.read(_SMOLLM2)
  assert (made.width, made.layers, made.mlp_width) == (576, 30, 1536)
  assert (made.heads, made.kv_heads, made.head_dim) == (9, 3, 64)
  assert (made.rope.theta, made.norm_epsilon, made.tied) == (1e5, 1e-5, True)
  with pytest.raises(ValueError, match='rope_interleaved=True'):
    families.read(_SMOLLM2 | {'rope_interleaved': True})


def test_what_says_how_to_sample_is_not_refused():
  old = dict(max_length=4096, temperature=0.6, top_p=0.9, do_sample=True)
  assert _read('llama2.narrow', **old) == _read('llama2.narrow')


def test_a_window_said_twice_is_one():
  twice = _read('gemma2.narrow', sliding_window_size=7)
  assert twice == _read('gemma2.narrow')
