"""Writes tests/fixtures/vision/: small models that see, and what they say.

  python tests/make_vision_fixtures.py

Wants torch and transformers, as `make_pretrained_fixtures.py` does, of the same
versions. A case is a published checkpoint of random weights, and reference.npz:

  pixels [2, S, S, 3] uint8   two images
  encoded [2, P, W]           their patches, after the encoder
  seen [2, N, D]              the tokens made of them
  tokens [M], lengths [2]     two rows of text, with runs of the image token
  shown [3]                   the image of each run, in order
  logits [M, V]               of every token; `logits32` in float32
  gradient/NAME               of the mean log-probability of all tokens but each
                              row's first; without the later layers

All but `logits32` is float64. Of smolvlm an image is smaller than those the
encoder was made for, and skips positions.
"""

import pathlib
import sys
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import make_pretrained_fixtures as fixtures  # noqa: E402

FOLDER = pathlib.Path(__file__).parent / 'fixtures' / 'vision'
IMAGE = 39  # The token that stands for a part of an image.

_VISION = dict(
  hidden_size=8,
  intermediate_size=12,
  num_hidden_layers=2,
  num_attention_heads=2,
)

# By case: class, vision, its scale_factor, whether tied, and size of images.
CASES: dict[str, tuple[str, dict[str, Any], int, bool, int]] = {
  'idefics3': ('Idefics3', dict(image_size=15, patch_size=1), 3, False, 15),
  'smolvlm': ('SmolVLM', dict(image_size=24, patch_size=2), 2, True, 16),
}


def configuration(case: str) -> Any:
  """The configuration of a case."""
  kind, sizes, scale, tied, _ = CASES[case]
  text = fixtures.SHAPES['narrow'] | dict(tie_word_embeddings=tied)
  return getattr(transformers, f'{kind}Config')(
    text_config=dict(model_type='llama', **fixtures._COMMON, **text),
    vision_config=_VISION | sizes,
    scale_factor=scale,
    image_token_id=IMAGE,
    tie_word_embeddings=tied,
    attn_implementation='eager',
  )


def build(config: Any, weights: Any) -> Any:
  """The model with these weights, in the precision that is on."""
  kind = torch.get_default_dtype()
  auto = transformers.AutoModelForImageTextToText
  model = auto.from_config(config, dtype=kind)
  if weights is None:
    draw = torch.Generator().manual_seed(3)
    weights = {}
    for name, value in model.state_dict().items():
      noise = torch.randn(value.shape, generator=draw)
      spread = 1.5 / value[0].numel() ** 0.5 if value.ndim > 1 else 0.3
      if 'position' in name:
        spread = 0.5
      begin = float(value.ndim == 1 and name.endswith('norm.weight'))
      begin = begin or float('layer_norm' in name and 'weight' in name)
      weights[name] = noise * spread + begin
  model.load_state_dict(weights)
  model.tie_weights()
  return model.eval(), weights


def rows_of(tokens: int) -> tuple[list[np.ndarray], list[list[int]]]:
  """Two rows, and which images each shows."""
  rng = np.random.default_rng(1)
  text = lambda n: rng.integers(3, IMAGE, n)
  image = np.full(tokens, IMAGE)
  first = np.concatenate([text(5), image, text(7), image, text(6)])
  return [first, np.concatenate([text(1), image, text(9)])], [[0, 1], [1]]


def logits(model: Any, rows, shown, pixels: torch.Tensor) -> torch.Tensor:
  """Of the tokens of all rows."""
  found = [
    model(
      input_ids=torch.as_tensor(row)[None],
      pixel_values=pixels[images][None],
      use_cache=False,
    ).logits[0]
    for row, images in zip(rows, shown, strict=True)
  ]
  return torch.cat(found)


def make(case: str) -> dict[str, np.ndarray]:
  """Writes the checkpoint of a case, and returns its reference."""
  config, (*_, size) = configuration(case), CASES[case]
  model, weights = build(config, None)
  model.save_pretrained(FOLDER / case)
  (FOLDER / case / 'generation_config.json').unlink()
  rng = np.random.default_rng(2)
  pixels = rng.integers(0, 256, (2, size, size, 3)).astype(np.uint8)
  scaled = torch.as_tensor(pixels.transpose(0, 3, 1, 2)) / 127.5 - 1
  with torch.no_grad():
    seen = model.get_image_features(scaled[None]).pooler_output[0]
    rows, shown = rows_of(len(seen) // 2)
    single = logits(model, rows, shown, scaled)
  with fixtures.double_precision():
    double, _ = build(config, weights)
    scaled = torch.as_tensor(pixels.transpose(0, 3, 1, 2)).double() / 127.5 - 1
    with torch.no_grad():
      found = double.get_image_features(scaled[None])
    exact = logits(double, rows, shown, scaled)
    fixtures.mean_logprob(exact, rows).backward()
  assert exact.dtype == torch.float64
  assert float((exact - single).abs().max()) < 1e-4
  print(case, f'std {exact.std():.2f}, float32', (exact - single).abs().max())
  slopes = {
    f'gradient/{name}': parameter.grad.numpy()
    for name, parameter in double.named_parameters()
    if '.layers.' not in name or '.layers.0.' in name
  }
  return slopes | dict(
    pixels=pixels,
    encoded=found.last_hidden_state.numpy(),
    seen=found.pooler_output[0]
    .numpy()
    .reshape(2, -1, config.text_config.hidden_size),
    tokens=np.concatenate(rows).astype(np.int32),
    lengths=np.asarray([len(row) for row in rows], np.int32),
    shown=np.asarray(sum(shown, []), np.int32),
    logits=exact.detach().numpy(),
    logits32=single.numpy(),
  )


def main() -> None:
  """Writes the folders of all cases."""
  torch.set_num_threads(1)
  for case in CASES:
    found = make(case)
    np.savez_compressed(FOLDER / case / 'reference.npz', **found)


if __name__ == '__main__':
  main()
