"""Writes tests/fixtures/pretrained/: small models and what they compute.

  python tests/make_pretrained_fixtures.py [case ...]

Wants torch and transformers, which nothing else needs; the folder is of torch
2.13 and transformers 5.23. A case is a published checkpoint (config.json,
model.safetensors in float32) of random weights, and reference.npz:

  tokens [N], lengths [3]    rows of a ragged batch, one after the other
  logits [N, V] float64      of every token; `logits32` in float32
  gradient/NAME              of the mean log-probability of all tokens but each
                             row's first; float64, without the later blocks
  balance float64            where there are experts: the load-balance loss of
                             the batch, layer by layer, the mean over layers
  prompts, prompt_lengths    of the greedy continuations
  greedy [2, 64]             what `generate` says, from a left-padded batch

The batch is computed padded on the left and on the right, which must agree.
Rows are longer than the window, than the length that a stretched rope was first
trained on, and than the positions of config.json (but those of LongRoPE).

transformers computes rotary tables, norms and softmax in float32 whatever the
dtype of a model, by naming float32 where they are computed. So while a float64
model is made and runs, `double_precision` makes torch answer float64 to that
name; what is then left of float32 is nothing: left and right padding agree to
1e-12.
"""

from collections.abc import Iterator
import contextlib
import copy
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
import safetensors.numpy
import torch
import transformers
from transformers.models.mixtral import modeling_mixtral

FOLDER = pathlib.Path(__file__).parent / 'fixtures' / 'pretrained'
LENGTHS = (40, 23, 9)
PROMPT_LENGTHS = (9, 5)
LONG_PROMPT_LENGTHS = (20, 18)  # Past the length of `_ORIGINAL`.
NEW_TOKENS = 64
WINDOW = 7
_ORIGINAL = 16

Settings = dict[str, Any]

SHAPES: dict[str, Settings] = {
  'narrow': dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
  ),
  'deep': dict(
    vocab_size=44,
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=3,
    num_attention_heads=5,
    num_key_value_heads=1,
    tie_word_embeddings=False,
  ),
}
_COMMON = dict(
  max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2
)


def _llama3(theta: float) -> Settings:
  rope = dict(rope_type='llama3', rope_theta=theta, factor=8.0)
  rope |= dict(low_freq_factor=1.0, high_freq_factor=4.0)
  return rope | dict(original_max_position_embeddings=_ORIGINAL)


def _yarn(**settings: Any) -> Settings:
  rope = dict(rope_type='yarn', rope_theta=10_000.0, factor=4.0)
  return rope | dict(original_max_position_embeddings=_ORIGINAL) | settings


def _longrope(original: int) -> Settings:
  rope = dict(
    rope_type='longrope',
    rope_theta=10_000.0,
    short_factor=[1.0, 1.3],
    long_factor=[1.5, 4.0],
    original_max_position_embeddings=original,
  )
  both = dict(original_max_position_embeddings=original, rope_parameters=rope)
  return both | dict(sliding_window=WINDOW, max_position_embeddings=128)


# Heads of eight channels, half of which turn.
_HALF_TURNED = dict(
  hidden_size=16, num_attention_heads=2, partial_rotary_factor=0.5
)


def _gemma3(*kinds: str, factor: float) -> Settings:
  whole = dict(rope_type='linear', rope_theta=1e6, factor=factor)
  local = dict(rope_type='default', rope_theta=10_000.0)
  return dict(
    head_dim=6,
    query_pre_attn_scalar=24,
    sliding_window=WINDOW,
    layer_types=[f'{kind}_attention' for kind in kinds],
    rope_parameters={'full_attention': whole, 'sliding_attention': local},
  )


_LATE_WINDOWS = dict(
  use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
)
_QWEN3_EXPERTS = dict(
  head_dim=8, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12
)
_GEMMA2 = dict(head_dim=6, sliding_window=WINDOW, query_pre_attn_scalar=24)

# By family: the class of its configuration, and what is said beside `SHAPES`.
FAMILIES: dict[str, tuple[str, dict[str, Settings]]] = {
  'llama2': (
    'Llama',
    {
      'narrow': dict(num_key_value_heads=4),
      'deep': dict(attention_bias=True, mlp_bias=True),
    },
  ),
  'llama3': (
    'Llama',
    {
      'narrow': dict(rope_parameters=_llama3(500_000.0)),
      'deep': dict(rope_parameters=_llama3(100.0), head_dim=8),
    },
  ),
  'mistral': (
    'Mistral',
    {
      'narrow': dict(sliding_window=WINDOW),
      'deep': dict(sliding_window=None, head_dim=8),
    },
  ),
  'qwen2': ('Qwen2', {'narrow': {}, 'deep': _LATE_WINDOWS}),
  'qwen2_yarn': (
    'Qwen2',
    {
      'narrow': dict(rope_parameters=_yarn()),
      'deep': _LATE_WINDOWS
      | dict(
        rope_parameters=_yarn(beta_fast=4.0, beta_slow=0.5, rope_theta=100.0)
      ),
    },
  ),
  'qwen3': (
    'Qwen3',
    {
      'narrow': dict(head_dim=8),
      'deep': _LATE_WINDOWS | dict(head_dim=6, attention_bias=True),
    },
  ),
  'gemma2': (
    'Gemma2',
    {
      'narrow': _GEMMA2,
      'deep': _GEMMA2
      | dict(attn_logit_softcapping=1.0, final_logit_softcapping=0.5),
    },
  ),
  'gemma3': (
    'Gemma3Text',
    {
      'narrow': _gemma3('sliding', 'full', factor=8.0),
      'deep': _gemma3('full', 'sliding', 'sliding', factor=2.0),
    },
  ),
  'phi3_short': (
    'Phi3',
    {'narrow': _longrope(96), 'deep': _longrope(96) | _HALF_TURNED},
  ),
  'phi3_long': (
    'Phi3',
    {'narrow': _longrope(16), 'deep': _longrope(16) | _HALF_TURNED},
  ),
  'smollm2': (
    'Llama',
    {
      'narrow': dict(
        rope_parameters=dict(rope_type='default', rope_theta=100_000.0)
      ),
      'deep': dict(
        tie_word_embeddings=True,
        num_attention_heads=3,
        hidden_size=12,
        rms_norm_eps=1e-5,
      ),
    },
  ),
  'olmo2': ('Olmo2', {'narrow': {}, 'deep': dict(num_key_value_heads=5)}),
  'mixtral': (
    'Mixtral',
    {
      'narrow': dict(num_local_experts=4, sliding_window=WINDOW),
      'deep': dict(
        head_dim=8,
        num_local_experts=5,
        num_experts_per_tok=3,
        rope_parameters=_yarn(),
      ),
    },
  ),
  'qwen3_moe': (
    'Qwen3Moe',
    {
      'narrow': _QWEN3_EXPERTS
      | dict(norm_topk_prob=True, rope_parameters=_yarn()),
      'deep': _QWEN3_EXPERTS
      | dict(use_sliding_window=True, sliding_window=WINDOW),
    },
  ),
}
# A family's place here is the seed of its weights.
SEEDS = (
  'gemma2 gemma3 llama2 llama3 mistral olmo2 phi3_long phi3_short qwen2 '
  'qwen2_yarn qwen3 smollm2 mixtral qwen3_moe'
).split()


def configuration(kind: str, settings: Settings) -> Any:
  """The configuration of a family, such as 'Llama'."""
  made = getattr(transformers, f'{kind}Config')
  found = made(**_COMMON | settings, attn_implementation='eager')
  # A loop over experts; the grouped product knows no float64.
  found._experts_implementation = 'eager'
  return found


def fresh(config: Any, seed: int) -> dict[str, torch.Tensor]:
  """Weights in which nothing is trivial, in float32, by their names."""
  model = transformers.AutoModelForCausalLM.from_config(config)
  draw = torch.Generator().manual_seed(seed)
  # Gemma adds one to the scale of a norm.
  begin = 0.0 if config.model_type.startswith('gemma') else 1.0
  weights = {}
  for name, value in model.state_dict().items():
    noise = torch.randn(value.shape, generator=draw, dtype=torch.float32)
    if not begin and ('embed' in name or 'lm_head' in name):
      # Scaled embeddings of full size would only ever repeat themselves.
      weights[name] = noise * 0.3 / value.shape[-1] ** 0.5
    elif value.ndim > 1:
      weights[name] = noise * 1.5 / value.shape[-1] ** 0.5
    else:
      weights[name] = 0.3 * noise + (begin if 'norm' in name else 0.0)
  return weights


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
  """While it lasts, torch answers float64 wherever code names float32."""
  single, widen = torch.float32, torch.Tensor.float
  try:
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64  # type: ignore[misc]
    torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment]
    yield
  finally:
    torch.float32 = torch.float = single  # type: ignore[misc]
    torch.Tensor.float = widen  # type: ignore[method-assign]
    torch.set_default_dtype(single)


def build(config: Any, weights: dict[str, torch.Tensor]) -> Any:
  """The model with these weights, in the precision that is on."""
  kind = torch.get_default_dtype()
  model = transformers.AutoModelForCausalLM.from_config(config, dtype=kind)
  model.load_state_dict(weights)
  model.tie_weights()
  for value in (*model.parameters(), *model.buffers()):
    assert value.dtype == kind or not value.is_floating_point()
  return model.eval()


def padded(rows: list[np.ndarray], left: bool) -> tuple:
  """Rows as one batch: tokens, mask and positions, [B, T] each."""
  size = max(map(len, rows))
  tokens = torch.zeros((len(rows), size), dtype=torch.int64)
  mask = torch.zeros_like(tokens)
  for row, ids in enumerate(rows):
    place = slice(size - len(ids), size) if left else slice(len(ids))
    tokens[row, place] = torch.as_tensor(ids)
    mask[row, place] = 1
  return tokens, mask, (mask.cumsum(1) - 1).clamp(min=0)


def logits(model: Any, rows: list[np.ndarray], *, left: bool) -> Any:
  """Logits [N, V] of the tokens of all rows, one row after the other."""
  tokens, mask, position = padded(rows, left)
  found = model(
    input_ids=tokens,
    attention_mask=mask,
    position_ids=position,
    use_cache=False,
  ).logits
  return found[mask.bool()]


def mean_logprob(scores: Any, rows: list[np.ndarray]) -> Any:
  """The mean of log p(token | those before) over all but each row's first."""
  found, start = [], 0
  for ids in rows:
    of_row = torch.log_softmax(scores[start : start + len(ids)], -1)
    chosen = of_row[:-1].gather(1, torch.as_tensor(ids[1:, None]))
    found.append(chosen[:, 0])
    start += len(ids)
  return torch.cat(found).mean()


def gradient(model: Any, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
  """The gradient of `mean_logprob`, by name; of blocks the first one's.

  Names are those of a checkpoint, where experts are tensors of their own: the
  slopes are saved as if they were weights.
  """
  slopes = copy.deepcopy(model)
  mean_logprob(logits(slopes, rows, left=False), rows).backward()
  for parameter in slopes.parameters():
    parameter.data = parameter.grad
  with tempfile.TemporaryDirectory() as folder:
    slopes.save_pretrained(folder)
    found = safetensors.numpy.load_file(f'{folder}/model.safetensors')
  return {
    name: value
    for name, value in found.items()
    if '.layers.' not in name or '.layers.0.' in name
  }


def balance(model: Any, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
  """The load-balance loss of the batch, where there are experts."""
  config = model.config
  if not getattr(config, 'num_experts_per_tok', 0):
    return {}
  tokens, mask, position = padded(rows, left=True)
  of_layers = model(
    input_ids=tokens,
    attention_mask=mask,
    position_ids=position,
    output_router_logits=True,
  ).router_logits
  each = [
    modeling_mixtral.load_balancing_loss_func(
      (layer,), config.num_local_experts, config.num_experts_per_tok, mask
    ).item()
    for layer in of_layers
  ]
  return {'balance': np.mean(each)}


def greedy(model: Any, prompts: list[np.ndarray]) -> np.ndarray:
  """Continuations int64 [B, NEW_TOKENS], by the model's cache."""
  tokens, mask, _ = padded(prompts, left=True)
  found = model.generate(
    input_ids=tokens,
    attention_mask=mask,
    do_sample=False,
    max_new_tokens=NEW_TOKENS,
    min_new_tokens=NEW_TOKENS,
    eos_token_id=None,
    pad_token_id=0,
  )
  return found[:, tokens.shape[1] :].numpy()


def _decided(model: Any, prompts: list[np.ndarray], said: np.ndarray) -> bool:
  """Whether every choice was clear, and the text not all one loop."""
  for prompt, tail in zip(prompts, said, strict=True):
    with torch.no_grad():
      scores = logits(model, [np.concatenate([prompt, tail])], left=False)
    best = scores[len(prompt) - 1 : -1].topk(2).values
    clear = float((best[:, 0] - best[:, 1]).min()) > 1e-3
    if not clear or len(set(tail.tolist())) < 6:
      return False
  return True


def _continuations(model, double, vocabulary: int, lengths) -> dict[str, Any]:
  """Prompts, and what the model says after them."""
  for seed in range(20):
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, vocabulary, n) for n in lengths]
    said = greedy(model, prompts)
    if _decided(double, prompts, said):
      return dict(
        prompts=np.concatenate(prompts).astype(np.int32),
        prompt_lengths=np.asarray(lengths, np.int32),
        greedy=said.astype(np.int32),
      )
  raise ValueError('No prompt has a continuation that is clear; change fresh.')


def make(case: str) -> dict[str, np.ndarray]:
  """Writes the checkpoint of a case, and returns its reference."""
  family, _, shape = case.partition('.')
  kind, changes = FAMILIES[family]
  config = configuration(kind, SHAPES[shape] | changes[shape])
  weights = fresh(config, seed=SEEDS.index(family))
  model = build(config, weights)
  model.save_pretrained(FOLDER / case)
  (FOLDER / case / 'generation_config.json').unlink()
  rng = np.random.default_rng(len(case))
  rows = [rng.integers(3, config.vocab_size, n) for n in LENGTHS]
  with torch.no_grad():
    single = logits(model, rows, left=True)
  with double_precision():
    double = build(config, weights)
    with torch.no_grad():
      exact = logits(double, rows, left=True)
      again = logits(double, rows, left=False)
      balanced = balance(double, rows)
    slopes = gradient(double, rows)
    lengths = LONG_PROMPT_LENGTHS if 'long' in family else PROMPT_LENGTHS
  said = _continuations(model, double, config.vocab_size, lengths)
  assert exact.dtype == again.dtype == torch.float64
  assert float((exact - again).abs().max()) < 1e-12
  print(case, f'std {exact.std():.2f}, float32', (exact - single).abs().max())
  return (
    said
    | balanced
    | dict(
      tokens=np.concatenate(rows).astype(np.int32),
      lengths=np.asarray(LENGTHS, np.int32),
      logits=exact.numpy(),
      logits32=single.numpy(),
      **{f'gradient/{name}': value for name, value in slopes.items()},
    )
  )


def main(cases: list[str]) -> None:
  """Writes the folders of these cases, or of all."""
  torch.set_num_threads(1)
  every = [f'{family}.{shape}' for family in FAMILIES for shape in SHAPES]
  for case in cases or every:
    np.savez_compressed(FOLDER / case / 'reference.npz', **make(case))


if __name__ == '__main__':
  main(sys.argv[1:])
