"""The transformer again, written plainly, for one unpadded sequence.

Nothing here is shared with the library but the names of the parameters. `xp` is
numpy, or jax.numpy where a gradient is wanted.
"""

import numpy as np


def _norm(x, scale, epsilon, xp):
  return x / xp.sqrt(xp.mean(x**2, -1, keepdims=True) + epsilon) * scale


def _rotate(x, theta, xp):
  """Rotates pairs (i, i + H/2) of x [T, H] by position * theta^(-2i/H)."""
  length, width = x.shape
  half = width // 2
  angle = np.arange(length)[:, None] * theta ** (-np.arange(half) / half)
  turn = np.exp(1j * np.tile(angle, 2))
  left, right = x[:, :half], x[:, half:]
  return x * turn.real + xp.concatenate([-right, left], 1) * turn.imag


def _softmax(x, xp):
  weights = xp.exp(x - xp.max(x, -1, keepdims=True))
  return weights / xp.sum(weights, -1, keepdims=True)


def _attend(config, block, x, xp):
  """One head after the other."""
  size, length = config.head_dim, x.shape[0]
  future = np.triu(np.ones((length, length), bool), 1)
  heads = []
  for head in range(config.heads):
    of_group = head // (config.heads // config.kv_heads)
    own = slice(head * size, (head + 1) * size)
    shared = slice(of_group * size, (of_group + 1) * size)
    q, k = x @ block['query'][:, own], x @ block['key'][:, shared]
    if config.qk_norm:
      q = _norm(q, block['query_norm']['scale'], config.norm_epsilon, xp)
      k = _norm(k, block['key_norm']['scale'], config.norm_epsilon, xp)
    q, k = (_rotate(y, config.rope.theta, xp) for y in (q, k))
    scores = xp.where(future, -np.inf, q @ k.T / np.sqrt(size))
    heads.append(_softmax(scores, xp) @ (x @ block['value'][:, shared]))
  return xp.concatenate(heads, axis=1) @ block['output']


def _mlp(gate, up, down, x, xp):
  gate = x @ gate
  return (gate / (1 + xp.exp(-gate)) * (x @ up)) @ down


def _mix(config, block, x):
  """One token after the other, through each of its experts."""
  out = np.zeros_like(x)
  for t, row in enumerate(x):
    share = _softmax(row @ block['router'], np)
    chosen = np.argsort(-share)[: config.experts_per_token]
    whole = share[chosen].sum() if config.renormalise_experts else 1
    for e in chosen:
      own = (block[name][e] for name in ('gate', 'up', 'down'))
      out[t] += share[e] / whole * _mlp(*own, row, np)
  return out


def hidden(config, params, tokens, xp=np):
  """The last hidden states [T, D] of tokens [T], normalised."""
  epsilon = config.norm_epsilon
  x = params['embedding'][tokens]
  for layer in range(config.layers):
    block = {
      name: value[layer]
      if not isinstance(value, dict)
      else {'scale': value['scale'][layer]}
      for name, value in params['blocks'].items()
    }
    inner = _norm(x, block['input_norm']['scale'], epsilon, xp)
    x = x + _attend(config, block, inner, xp)
    inner = _norm(x, block['mlp_norm']['scale'], epsilon, xp)
    if config.experts:
      x = x + _mix(config, block, inner)
    else:
      x = x + _mlp(block['gate'], block['up'], block['down'], inner, xp)
  return _norm(x, params['final_norm']['scale'], epsilon, xp)


def logits(config, params, tokens, xp=np):
  """Scores [T, V] of the token after each of tokens [T]."""
  name = 'embedding' if config.tied else 'unembedding'
  return hidden(config, params, tokens, xp) @ params[name].T
