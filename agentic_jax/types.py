"""The records that cross module boundaries, and the one alphabet of shapes.

Shapes, used in every docstring and never redefined:

  B rows of a batch         T tokens of a row        V vocabulary   D width
  E episodes                S turns of an episode    G groups
  N action tokens of an episode                      R reward components
  L layers                 X experts of a layer, of which k see a token
  M rows of a prefix tree  U entries of such a row
  H value heads            K numbers of one         C classes of steps

Alignment, everywhere: entry t of a `[B, T]` array is about token t. A
log-probability at t is log p(token t | tokens before t); entry 0 of a segment
is 0. `values[t]` is the value before token t is chosen.

Host records (numpy and Python) describe what happened; device records are
NamedTuples of arrays, hence pytrees, and need no import of jax.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy.ndarray on the host, jax.Array on the device.

# Reward components, in the order of axis R of `Turns.rewards`.
REWARDS = ('final', 'process', 'auxiliary', 'social')

# Kinds of action tokens; `Trajectory.role` holds indices into this tuple.
ROLES = ('text', 'think', 'tool', 'memory', 'plan', 'switch', 'summary')


# Kinds of faults that cost an episode: its environment raised, answered too
# late or returned what its contract does not allow; or the prompt is too long.
FAILURES = ('raised', 'hung', 'garbage', 'long')


class Observation(NamedTuple):
  """What the environment answers to who moves next. Never trained on."""

  text: str
  images: tuple[np.ndarray, ...] = ()


class Task(NamedTuple):
  """What is to be solved.

  `index` is the position in its split. `answer` and `data` are for the
  environment and the verifier only; they never reach the policy's tokens.
  """

  index: int
  prompt: str
  answer: str = ''
  kind: str = ''
  difficulty: int = 0
  data: Mapping[str, Any] = {}


class Transition(NamedTuple):
  """What an environment returns from `reset` and `step`."""

  state: Any  # Immutable: stepping it twice is how search and branching work.
  observation: Observation
  reward: Mapping[str, float] = {}  # By component, keys from REWARDS.
  terminated: bool = False  # The world ended it.
  truncated: bool = False  # A limit of the world did.
  state_key: str = ''  # Equal strings: the same situation. '' is unknown.
  agent: int = 0  # Who moves next.
  others: Mapping[int, Mapping[str, float]] = {}  # By agent: the rewards of
  #                      those who did not move, for their last turns.


class Turn(NamedTuple):
  """One action of the policy and the observation that answered it."""

  action: str
  observation: Observation
  reward: Mapping[str, float]
  state_key: str = ''  # The situation in which the action was chosen.
  agent: int = 0  # Who moved.
  num_tokens: int = 0  # Action tokens of this turn.
  num_calls: int = 0  # Tool calls in the action.
  valid: bool = True  # The action parsed.
  cut: bool = False  # The token limit ended the action, not the policy.
  asked: bool = False  # The context asked for it; the world did not see it.
  node: int = -1  # Equal numbers in a group: one turn, shared by branches.
  value: float | None = None  # Mean return of rollouts from its beginning.
  stale: bool = False  # Sampled from a cache that older parameters wrote: no
  #                      parameters reproduce its log-probabilities.


class Segment(NamedTuple):
  """One forward context the policy really saw: arrays over its n tokens."""

  tokens: np.ndarray  # int32 [n]
  action_mask: np.ndarray  # bool [n]
  turn: np.ndarray  # int32 [n], -1 elsewhere
  role: np.ndarray  # int8 [n], index into ROLES
  policy_step: np.ndarray  # int32 [n], -1 elsewhere
  sampler_logprobs: np.ndarray  # float32 [n], 0 elsewhere
  temperature: np.ndarray  # float32 [n], 1 elsewhere
  teacher_logprobs: np.ndarray | None = None  # float32 [n], where probed
  images: np.ndarray | None = None  # uint8 [k, S, S, 3]; None if it cannot see
  sight: np.ndarray | None = None  # int32 [n]: which of the k N tokens of its
  #                                  images it is, -1 is none
  experts: np.ndarray | None = None  # int16 [n, L, k]: of L layers, those that
  #                                    saw the token; -1 is no record.
  kept: np.ndarray | None = None  # uint8 [n, W], W = ceil(V / 8): bit v % 8 of
  #                                 entry v // 8 says whether token v might have
  #                                 been sampled here; all ones elsewhere.


class Restart(NamedTuple):
  """The turn of an earlier episode of a task, where other episodes begin.

  The world is reset with the earlier episode's draw and stepped with its
  actions and seeds; the policy has read what that episode had read and said.
  """

  draw: int  # Of the earlier episode.
  member: int
  actions: tuple[str, ...]  # Of its turns before, in order.
  tokens: tuple[int, ...]  # What it had read and said by then.
  success: bool  # Whether it went on to solve the task.


class Episode(NamedTuple):
  """Everything from reset to the end.

  `draw` counts the tasks drawn in a run: with `member` it names the episode
  and seeds its randomness. `failure` is '' or the kind of fault that ended
  it, of FAILURES. `baseline` is what the greedy members of its group earned,
  by component; None where none were played. One with a `restart` began there:
  its turns are those from there on. In a world of several agents an episode
  that is trained on is the part of one of them, `agent`: the turns that it
  moved in, and what it saw.
  """

  task: Task
  draw: int
  member: int
  segments: tuple[Segment, ...]
  turns: tuple[Turn, ...]
  terminated: bool = False
  truncated: bool = False
  failure: str = ''
  detail: str = ''
  baseline: Mapping[str, float] | None = None
  restart: Restart | None = None
  agent: int = 0

  @property
  def reward(self) -> float:
    """The undiscounted, unweighted sum of all rewards of all turns."""
    return float(sum(sum(turn.reward.values()) for turn in self.turns))

  @property
  def success(self) -> bool:
    """Whether the final reward, summed over turns, is at least one half."""
    return sum(turn.reward.get('final', 0.0) for turn in self.turns) >= 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueHead:
  """How the value before a token is read off a hidden state.

  A head says one number, which is the value, or a distribution of returns,
  whose mean is the value: over `bins`, or by `quantiles`.

  Attributes:
    levels: of each of ROLES, the number of the head that reads the value before
      a token of that role; () is one head for all.
    bins: of a categorical distribution, at even distances; 0 is none.
    low: the return that the first bin stands for.
    high: the return that the last bin stands for.
    quantiles: how many of them a head says; 0 is none.
  """

  levels: tuple[int, ...] = ()
  bins: int = 0
  low: float = 0.0
  high: float = 0.0
  quantiles: int = 0

  def __post_init__(self):
    if self.levels and len(self.levels) != len(ROLES):
      raise ValueError(
        f'levels={self.levels} must name a head for each of the roles {ROLES}, '
        'or be () for one head.'
      )
    if self.bins and (self.bins < 2 or self.low >= self.high):
      raise ValueError(
        f'bins={self.bins} from low={self.low} to high={self.high} must be at '
        'least 2, and low below high.'
      )
    if min(self.bins, self.quantiles) < 0 or (self.bins and self.quantiles):
      raise ValueError(
        f'A value is read off bins={self.bins} or quantiles={self.quantiles}, '
        'not both; 0 is none.'
      )

  @property
  def number(self) -> int:
    """How many heads there are."""
    return max(self.levels, default=0) + 1

  @property
  def parts(self) -> int:
    """K: how many numbers a head says."""
    return self.bins or self.quantiles or 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
  """What a policy says of its tokens besides how likely they are.

  Attributes:
    value: the value before each token; None is none.
    reward: whether it says one number of all up to each token.
    step_classes: C, of the class of a step that ends at a token; 0 is none.
    separate: whether these are read off a trunk of their own, a critic, which
      begins as a copy of the policy's.
  """

  value: ValueHead | None = None
  reward: bool = False
  step_classes: int = 0
  separate: bool = False

  def __post_init__(self):
    if self.step_classes == 1 or self.step_classes < 0:
      raise ValueError(
        f'step_classes={self.step_classes} must be at least 2, or 0 for none.'
      )
    if self.separate and not self.any:
      raise ValueError(
        'separate=True asks for a trunk of its own for heads, and there are '
        'none; give it one of value, reward and step_classes.'
      )

  @property
  def any(self) -> bool:
    """Whether there is a head at all."""
    return self.value is not None or self.reward or self.step_classes > 0

  def holds(self, wanted: 'Heads') -> bool:
    """Whether all heads that are wanted are among these, in the same form."""
    return (
      (wanted.value is None or wanted.value == self.value)
      and self.reward >= wanted.reward
      and wanted.step_classes in (0, self.step_classes)
      and self.separate >= wanted.separate
    )


class PrefixTree(NamedTuple):
  """Tokens of a microbatch, those that segments begin with alike told once.

  Entries of a row are in depth-first order: entry i comes before entry j in a
  segment, and j sees it, if and only if i <= j <= reach[i]. Padding sees
  itself. Whoever computes what a policy says does so per entry, and takes it to
  the tokens by `entry`.
  """

  fits: Array  # bool []: whether all found room; else there is only padding.
  place: Array  # int32 [M, U]: flat index row * T + t of a token that the entry
  #               is, an action token where there is one; -1 is padding.
  parent: Array  # int32 [M, U]: the entry of its row before it in a segment;
  #                itself at a first token.
  reach: Array  # int32 [M, U]: the last entry of its row that sees it.
  entry: Array  # int32 [B, T]: flat index m * U + u of the token's entry; 0 at
  #               padding.


class Trajectory(NamedTuple):
  """A batch of episodes, per token. A row packs one or more segments."""

  tokens: Array  # int32 [B, T]
  action_mask: Array  # bool [B, T]: sampled by the policy, and trained on.
  turn: Array  # int32 [B, T]: turn of its episode, -1 elsewhere.
  role: Array  # int8 [B, T]: index into ROLES.
  segment: Array  # int32 [B, T]: 0 is padding, counts from 1 in a row.
  position: Array  # int32 [B, T]: restarts with each segment.
  episode: Array  # int32 [B, T]: row of Turns, -1 is padding.
  policy_step: Array  # int32 [B, T]: -1 is "not sampled by us".
  sampler_logprobs: Array  # float32 [B, T]: of the distribution sampled.
  temperature: Array  # float32 [B, T]: replayed in training.
  proximal_logprobs: Array | None = None  # float32 [B, T]
  reference_logprobs: Array | None = None  # float32 [B, T]
  teacher_logprobs: Array | None = None  # float32 [B, T]
  values: Array | None = None  # float32 [B, T]
  images: Array | None = None  # uint8 [B, I, S, S, 3]: those of a row.
  sight: Array | None = None  # int32 [B, T]: which of the I N tokens of the
  #                             row's images it is, -1 is none.
  experts: Array | None = None  # int16 [B, T, L, k]: replayed in training; -1
  #                               is no record: the routers choose.
  kept: Array | None = None  # uint8 [B, T, W]: replayed in training: which
  #                            tokens might have been sampled; see Segment.
  tree: Any = None  # A PrefixTree of the rows of a microbatch, for whoever
  #                   computes what a policy says of them; None is none.


class Turns(NamedTuple):
  """A batch of episodes, per turn."""

  rewards: Array  # float32 [E, S, R], components in the order of REWARDS.
  mask: Array  # bool [E, S]: the turn happened.
  state: Array  # int32 [E, S]: equal numbers began in one situation.
  agent: Array  # int32 [E, S]: who moved.
  tokens: Array  # int32 [E, N]: flat index row * T + t of the episode's
  #                action tokens in order, -1 is padding.
  group: Array  # int32 [E]: equal numbers share a task, -1 is padding.
  truncated: Array  # bool [E]: a limit ended it, not the environment.
  baseline: Array | None = None  # float32 [E, R]: what the greedy members of
  #                                its group earned, mean over these.
  node: Array | None = None  # int32 [E, S]: equal numbers are one turn, which
  #                            several leaves of a tree share; -1 is padding.
  value: Array | None = None  # float32 [E, S]: of the situation in which the
  #                             turn began, by rollouts from there.


class Outputs(NamedTuple):
  """What the policy says of a trajectory's tokens; gradients flow."""

  logprobs: Array  # float32 [B, T], at the trajectory's temperature.
  entropy: Array | None = None  # float32 [B, T], of the same distribution.
  values: Array | None = None  # float32 [B, T], None without a value head.
  vocabulary: dict[str, Array] | None = None  # float32 [B, T] by name, 0
  #                outside the action mask: of the recipe's `vocabulary`.
  router_logits: Array | None = None  # float32 [B, T, L, X], of X experts; None
  #                                     without experts.
  experts: Array | None = None  # int32 [B, T, L, k]: those that saw the token.
  value_parts: Array | None = None  # float32 [B, T, K]: logits of the bins, or
  #                    the quantiles, whose mean `values` is; None without.
  rewards: Array | None = None  # float32 [B, T]: of all up to each token, by
  #                               the reward head.
  step_logits: Array | None = None  # float32 [B, T, C]: of the class of a step
  #                                   that ends at the token.


class Chunk(NamedTuple):
  """C tokens of a batch, with what is said of the whole vocabulary there.

  Logits are divided by the temperature, and lie at the token they predict.
  """

  logits: Array  # float32 [C, V], of the policy; gradients flow.
  teacher_logits: Array | None  # float32 [C, V], without a gradient.
  tokens: Array  # int32 [C]
  mask: Array  # bool [C]: action tokens; all else is to be ignored.
  index: Array  # int32 [C]: row * T + t in the rows at hand, -1 is padding. Of
  #               tokens that a prefix tree shares, that of one.


class Credit(NamedTuple):
  """What a recipe's `credit` returns. No gradient flows through it."""

  advantages: Array  # float32 [B, T], 0 outside the action mask.
  returns: Array | None = None  # float32 [B, T], targets of the value head,
  #                               or of the class of steps.
  value_mask: Array | None = None  # bool [B, T]: where `returns` is a target.
  place: Array | None = None  # int32 [B, T]: of the token's episode in a pair
  #                             or list, `preferences.pair_places`; -1 is none.
  factor: Array | None = None  # float32 [B, T]: of the loss of a token, from
  #                              statistics of the whole batch (`prepare`).
  expert_shares: Array | None = None  # float32 [B, L, X]: of the whole batch,
  #                                     the same in every row.
