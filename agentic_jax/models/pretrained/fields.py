"""Fields of config.json that every family has, and those it may not have."""

from collections.abc import Collection, Mapping
from typing import Any

# These change nothing of what a forward pass computes.
_HARMLESS = frozenset(
  """
  _attn_implementation _name_or_path architectures attention_dropout auto_map
  bos_token_id cache_implementation chunk_size_feed_forward dtype embd_pdrop
  eos_token_id hidden_dropout_prob id2label initializer_range is_llama_config
  label2id max_position_embeddings model_type output_attentions
  output_hidden_states output_router_logits pad_token_id pretraining_tp
  problem_type resid_pdrop return_dict router_aux_loss_coef
  router_jitter_noise torch_dtype transformers.js_config transformers_version
  unk_token_id use_cache
  """.split()
)

# How to sample, which older versions of transformers wrote there too.
_GENERATION = frozenset(
  """
  bad_words_ids begin_suppress_tokens diversity_penalty do_sample
  early_stopping encoder_no_repeat_ngram_size
  exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id
  length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
  num_beams num_return_sequences output_scores remove_invalid_values
  repetition_penalty return_dict_in_generate suppress_tokens temperature top_k
  top_p typical_p
  """.split()
)

# What is understood of every family.
_COMMON = frozenset(
  """
  attention_bias head_dim hidden_act hidden_activation hidden_size
  intermediate_size layer_types mlp_bias num_attention_heads num_hidden_layers
  num_key_value_heads original_max_position_embeddings partial_rotary_factor
  rms_norm_eps rope_parameters rope_scaling rope_theta sliding_window
  tie_word_embeddings vocab_size
  """.split()
)

_KNOWN = _HARMLESS | _GENERATION | _COMMON


def refuse_unknown(source: Mapping[str, Any], own: Collection[str]) -> None:
  """Refuses what may change the mathematics without being understood.

  Args:
    source: config.json.
    own: names of the fields that its family has besides those of all.

  Raises:
    ValueError: there is such a field; names it.
  """
  for name, value in source.items():
    # Some of Gemma 2 say it twice.
    twice = name == 'sliding_window_size' and (
      value == source.get('sliding_window')
    )
    known = twice or name in _KNOWN or name in own
    # Whatever is off by its value changes nothing.
    if not known and value not in (None, False, 0, '', [], {}):
      raise ValueError(
        f'config.json has {name}={value!r}, which this transformer does not '
        f'know of the family {source["model_type"]!r} and which may change '
        'what it computes; if it does not, remove the field.'
      )
