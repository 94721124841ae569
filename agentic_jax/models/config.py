"""The shape of a transformer: all in which families of models differ."""

import dataclasses

from agentic_jax import types

# What lies between the gate of an MLP and its product with the other half.
ACTIVATIONS = ('silu', 'gelu_tanh')

# The matrices of a block.
ATTENTION = ('query', 'key', 'value', 'output')
MLP = ('gate', 'up', 'down')
MATRICES = ATTENTION + MLP

# Parameters of the heads, and of the trunk that they may have to themselves. No
# published model has them, and nothing that samples, anchors or teaches does.
OWN = ('heads', 'critic')

# What of a block is kept for its gradient: all of it, the results of its
# products, or only its input, from which the rest is computed again.
REMATS = ('', 'products', 'block')

# How the matrices of a frozen base may be kept.
BASES = ('', 'bfloat16', 'int8')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
  """Rotary position embeddings.

    angle of pair i at position p = p theta^(-2i/W) / divisor_i

  of W rotated channels. Every way of stretching a context (linear, by parts,
  YaRN, LongRoPE) is a list of divisors.

  Attributes:
    theta: base of the frequencies.
    divisors: one a pair of channels; () is 1 for all.
    share: of a head's channels, the first ones, that are rotated.
    scale: of cosines and sines.

  References:
    Su et al., 2021, arXiv:2104.09864, equation 34.
  """

  theta: float = 10_000.0
  divisors: tuple[float, ...] = ()
  share: float = 1.0
  scale: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """Adapters of low rank beside frozen matrices.

    y = x W + scale (x A) B,   scale = alpha / rank, or alpha / rank^1/2

  B begins at 0, and with it what the adapters add.

  Attributes:
    rank: of A B.
    alpha: see above.
    targets: which matrices have one, of MATRICES.
    rank_stabilised: the second scale, whose effect does not fade with rank.

  References:
    Hu et al., 2021, arXiv:2106.09685, equation 3.
    Kalajdzievski, 2023, arXiv:2312.03732, definition 1 (rank-stabilised).
  """

  rank: int
  alpha: float = 16.0
  targets: tuple[str, ...] = MATRICES
  rank_stabilised: bool = False

  def __post_init__(self):
    if self.rank < 1 or not self.targets:
      raise ValueError(
        f'Adapters have a rank of at least 1 and some targets; got '
        f'rank={self.rank}, targets={self.targets}.'
      )
    _refuse_unknown('targets', self.targets)

  @property
  def scale(self) -> float:
    """What A B is multiplied by."""
    return self.alpha / self.rank ** (0.5 if self.rank_stabilised else 1.0)


def _refuse_unknown(field: str, names: tuple[str, ...]) -> None:
  if not set(names) <= set(MATRICES):
    raise ValueError(f'{field}={names} must be of the matrices {MATRICES}.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
  """The shape of what makes tokens of images; see `vision.Vision`.

  Attributes:
    image_size: pixels a side, of every image of a run.
    patch_size: pixels a side of a patch; divides `image_size`.
    grid: patches a side for which there are positions, at least those of an
      image; 0 is as many as an image has.
    width: of the encoder's stream.
    layers: of the encoder.
    heads: of the encoder; divides `width`.
    mlp_width: hidden width of its MLP.
    shuffle: patches a side that become one token; divides those of an image.
    norm_epsilon: added to the variance.
    frozen: whether the encoder stays as it is, and only the projector trains;
      beside adapters neither does.
  """

  image_size: int
  patch_size: int
  grid: int = 0
  width: int
  layers: int
  heads: int
  mlp_width: int
  shuffle: int = 1
  norm_epsilon: float = 1e-6
  frozen: bool = False

  def __post_init__(self):
    if (
      self.image_size % (self.patch_size * self.shuffle)
      or self.width % self.heads
      or 0 < self.grid < self.side
    ):
      raise ValueError(
        f'image_size={self.image_size} must be a multiple of '
        f'patch_size={self.patch_size} times shuffle={self.shuffle}, '
        f'width={self.width} one of heads={self.heads}, and grid={self.grid} '
        f'0 or at least the {self.side} patches a side of an image.'
      )

  @property
  def side(self) -> int:
    """Patches a side of an image."""
    return self.image_size // self.patch_size

  @property
  def tokens(self) -> int:
    """Tokens of an image."""
    return (self.side // self.shuffle) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """The shape of a transformer.

  Attributes:
    vocab_size: V.
    width: D, of the residual stream.
    layers: number of blocks.
    heads: query heads.
    kv_heads: key and value heads; divides `heads`.
    head_dim: width of a head; even.
    mlp_width: hidden width of the gated MLP, or of each expert.
    activation: of the gate, of ACTIVATIONS.
    biases: names of the matrices that have one, of MATRICES.
    rope: of positions.
    local_rope: of the layers that have a window; None is `rope`.
    windows: of each layer, how many positions back it sees, its own included;
      0 is all. () is 0 for all layers.
    query_scale: scores are multiplied by it; 0 is head_dim^-1/2.
    score_cap: scores s become cap tanh(s / cap); 0 leaves them.
    logit_cap: the same of logits.
    qk_norm: '' for none, 'head' normalises queries and keys per head, 'all'
      over all heads at once.
    pre_norms: whether attention and MLP read a normalised stream.
    post_norms: whether what they write to the stream is normalised.
    norm_epsilon: added to the mean square.
    norm_offset: added to the scale of a norm, which then begins at 0.
    embedding_scale: embeddings are multiplied by it.
    tied: whether the output projection is the embedding.
    output_heads: what is read off hidden states besides the next token.
    dtype: of parameters and activations; normalisation, softmax and
      log-probabilities are computed in float32 at least.
    lora: adapters; then they and the heads are all that trains.
    base: of BASES; how the frozen matrices of the blocks are kept beside
      adapters: '' as `dtype`, else as the name says (int8: with a scale a
      column).
    remat: of REMATS; what is kept for the gradient of a block.
    vision: what makes tokens of images; None is a model of text alone.
    experts: X, of a layer, in the place of its MLP; 0 is one MLP for all.
    experts_per_token: k, how many of them see a token.
    renormalise_experts: whether the weights of these k sum to 1.
  """

  vocab_size: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_width: int
  activation: str = 'silu'
  biases: tuple[str, ...] = ()
  rope: Rope = Rope()
  local_rope: Rope | None = None
  windows: tuple[int, ...] = ()
  query_scale: float = 0.0
  score_cap: float = 0.0
  logit_cap: float = 0.0
  qk_norm: str = ''
  pre_norms: bool = True
  post_norms: bool = False
  norm_epsilon: float = 1e-6
  norm_offset: float = 0.0
  embedding_scale: float = 1.0
  tied: bool = True
  output_heads: types.Heads = types.Heads()
  dtype: str = 'float32'
  lora: Lora | None = None
  base: str = ''
  remat: str = ''
  vision: VisionConfig | None = None
  experts: int = 0
  experts_per_token: int = 0
  renormalise_experts: bool = True

  def __post_init__(self):
    self._refuse_experts()
    if self.heads % self.kv_heads or self.head_dim % 2:
      raise ValueError(
        f'heads={self.heads} must be a multiple of kv_heads={self.kv_heads}, '
        f'and head_dim={self.head_dim} even.'
      )
    if self.windows and len(self.windows) != self.layers:
      raise ValueError(
        f'{len(self.windows)} windows do not fit {self.layers} layers; give '
        'one a layer, 0 where a layer sees everything.'
      )
    if self.activation not in ACTIVATIONS or self.qk_norm not in (
      '',
      'head',
      'all',
    ):
      raise ValueError(
        f'activation={self.activation!r} is one of {ACTIVATIONS}, and '
        f"qk_norm={self.qk_norm!r} is '', 'head' or 'all'."
      )
    _refuse_unknown('biases', self.biases)
    if self.remat not in REMATS:
      raise ValueError(f'remat={self.remat!r} is none of {REMATS}.')
    if self.base not in BASES or (self.base and self.lora is None):
      raise ValueError(
        f"base={self.base!r} is one of {BASES}, and anything but '' needs "
        'adapters: the base is frozen then.'
      )

  def _refuse_experts(self) -> None:
    k = self.experts_per_token
    if not (1 <= k <= self.experts or k == self.experts == 0):
      raise ValueError(
        f'Of experts={self.experts}, experts_per_token={k} cannot see a token; '
        'give both, such as experts=8 and experts_per_token=2, or neither.'
      )
    biased = set(self.biases) & set(MLP)
    if self.experts and biased:
      raise ValueError(
        f'Experts have no biases, got biases of {sorted(biased)}; those of '
        f'{ATTENTION} are possible.'
      )
