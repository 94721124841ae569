"""Writes tests/fixtures/experts_*: tiny models of the families with experts.

  python tests/make_experts_fixtures.py

It needs torch and transformers (5.23), which the tests do not. Each folder has
a model, and in expected.npz: token ids [2, T], their mask, logits in float32,
gradients of the mean log-probability, and the mean over layers of the
load-balance loss.
"""

import pathlib

import numpy as np
import torch
import transformers
from transformers.models.mixtral import modeling_mixtral

_OUT = pathlib.Path(__file__).parent / 'fixtures'
_TOKENS = 24
_SHAPE = dict(
  vocab_size=48,
  hidden_size=16,
  intermediate_size=20,
  num_hidden_layers=2,
  num_attention_heads=2,
  num_key_value_heads=1,
  max_position_embeddings=64,
  pad_token_id=0,
  bos_token_id=1,
  eos_token_id=2,
)
_QWEN3 = _SHAPE | dict(
  head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12
)
_MODELS = {
  'mixtral': transformers.MixtralConfig(
    **_SHAPE, num_local_experts=4, num_experts_per_tok=2, sliding_window=7
  ),
  'qwen3_moe': transformers.Qwen3MoeConfig(**_QWEN3, norm_topk_prob=True),
  'qwen3_moe_plain': transformers.Qwen3MoeConfig(
    **_QWEN3, use_sliding_window=True, sliding_window=9
  ),
}


def _fill(model) -> None:
  """Random numbers with which nothing is trivial."""
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      spread = 0.2 if parameter.ndim == 1 else 0.3
      noise = torch.randn_like(parameter) * spread
      parameter.copy_(noise + (1.0 if 'norm' in name else 0.0))


def _expected(model) -> dict[str, np.ndarray]:
  ids = torch.randint(3, 48, (2, _TOKENS))
  mask = torch.ones_like(ids)
  mask[1, 15:] = 0
  out = model(ids, attention_mask=mask, output_router_logits=True)
  logprobs = torch.log_softmax(out.logits[:, :-1], -1)
  chosen = torch.gather(logprobs, -1, ids[:, 1:, None])[..., 0]
  real = mask[:, 1:].bool()
  chosen[real].mean().backward()
  config = model.config
  balance = [
    modeling_mixtral.load_balancing_loss_func(
      (layer,), config.num_experts, config.num_experts_per_tok, mask
    )
    for layer in out.router_logits
  ]
  layer = model.model.layers[0]
  return {
    'ids': ids.numpy(),
    'mask': mask.numpy(),
    'logits': out.logits.detach().numpy(),
    'embedding_gradient': model.model.embed_tokens.weight.grad.numpy(),
    'router_gradient': layer.mlp.gate.weight.grad.numpy(),
    'down_gradient': layer.mlp.experts.down_proj.grad.numpy(),
    'balance': np.mean([x.item() for x in balance]),
  }


def main() -> None:
  for name, config in _MODELS.items():
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
      config, attn_implementation='eager', experts_implementation='eager'
    ).eval()
    _fill(model)
    folder = _OUT / f'experts_{name}'
    model.save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    np.savez_compressed(folder / 'expected.npz', **_expected(model))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f'{folder.name}: {size} bytes')


if __name__ == '__main__':
  main()
