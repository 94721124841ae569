"""The record of a recipe, and the settings that all recipes share."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optax

from agentic_jax import probes
from agentic_jax import types
from agentic_jax.recipe import branching
from agentic_jax.recipe import sampling as sampling_lib
from agentic_jax.types import Array

Terms = dict[str, Array]


class Networks(NamedTuple):
  """Parameters by their part in the objective."""

  policy: Any
  reference: Any = None  # The frozen anchor; None unless the recipe uses it.
  teacher: Any = None  # Of another run; None unless the recipe brings one.


def refuse_nothing(world: Any) -> None:
  """Probes can be made of the episodes of any world."""
  del world


class Probing(NamedTuple):
  """What a recipe asks the policy in contexts that nobody sampled.

  Or its reference, or its teacher: a probe says whom.

  Attributes:
    ask: (episode, world) -> probes, on the host; none is fine. `world` has the
      environment, the tokenizer and the grammar.
    absorb: (episode, probes, logprobs) -> the episode with further rewards of
      its turns, or with `teacher_logprobs` in its segments; its tokens stay.
      `logprobs` are float32, one array a probe, of the tokens it asks about.
    extra_tokens: by how many tokens a probe may be longer than a segment.
    fills: the fields of Segment that `absorb` fills in, in every segment.
    refuse: (world) -> None, before anything is sampled; raises ValueError where
      `ask` could not answer for the episodes of a world.
  """

  ask: Callable[[types.Episode, Any], Sequence[probes.Probe]]
  absorb: Callable[..., types.Episode]
  extra_tokens: int
  fills: tuple[str, ...] = ()
  refuse: Callable[[Any], None] = refuse_nothing


class Routing(NamedTuple):
  """What a mixture of experts is asked for in training."""

  balance: float = 0.0  # Coefficient of the load-balance loss.
  z: float = 0.0  # Coefficient of the router-z loss.
  replay: bool = True  # Whether tokens see the experts they were sampled with.


def score_nothing(
  apply: Callable, networks: Networks, trajectory, turns
) -> types.Trajectory:
  """Nothing needs to be known before credit."""
  del apply, networks, turns
  return trajectory


def prepare_nothing(outputs, trajectory, credit) -> types.Credit:
  """The loss is separable: nothing is needed from the whole batch."""
  del outputs, trajectory
  return credit


def carry_nothing(outputs, trajectory, credit, carried):
  """No step says anything to the next."""
  del outputs, trajectory
  return credit, carried


def measure_nothing(outputs, trajectory, credit) -> Terms:
  """No diagnostics beyond those of every run."""
  del outputs, trajectory, credit
  return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """One training algorithm.

  Attributes:
    credit: (trajectory, turns) -> Credit.
    loss: (outputs, trajectory, credit) -> {term: [B, T]}, minimised.
    weigh: (trajectory, turns) -> {term: [B, T]}, once per optimiser step. The
      scalar is the sum over terms of sum(weight * loss).
    optimizer: the transformation of gradients into updates.
    score: (apply, networks, trajectory, turns) -> trajectory, on the rows of a
      microbatch; fills in what must be known before credit: reference,
      proximal or teacher log-probabilities, values.
    prepare: (outputs, trajectory, credit) -> Credit; gradient-free statistics
      of the whole batch, for losses that are not separable.
    carry: (outputs, trajectory, credit, carried) -> (Credit, carried), after
      `prepare` and like it; what it returns last is given to the next step.
    carried: what the first step is given: a tree of numbers or arrays, whose
      shapes stay. It is in the checkpoints.
    measure: (outputs, trajectory, credit) -> {name: [B, T]}; means over the
      action tokens are logged as policy/name.
    keep: (turns) -> bool [E] on the host, for one group; None keeps all. A
      rejected group is replaced by that of the next task.
    probe: what the policy that sampled a batch is asked in other contexts,
      between sampling and batching; None is nothing. `keep` sees the episodes
      before.
    vocabulary: (types.Chunk) -> {name: [C]}, a function of the logits of some
      tokens, such as a divergence from the teacher's. The loss finds the
      results in `outputs.vocabulary`; [B, T, V] is never held.
    teacher: parameters of another policy of the same size, which are
      `networks.teacher`; without them the reference teaches.
    teacher_adapters: the `config.Lora` that the teacher was trained with; None
      if it has no adapters.
    demonstrations: how many of them, the last members of a group, are scripted
      demonstrations; the policy_step of their tokens is -1.
    greedy_members: further episodes of each task, played at temperature 0 from
      the same start. Nothing of them is trained on; `Turns.baseline` says what
      they earned.
    group_size: episodes of a task; of a tree, its leaves.
    branch: how episodes fork at their turns: a `Tree` whose leaves are trained
      on, or `Probes` that only value their situations; None is not at all.
    epochs: passes over a batch.
    minibatches: optimiser steps a pass.
    sampling: how actions are sampled.
    routing: what a mixture of experts is asked for.
    heads: what the policy needs besides the next token, such as a value.
    uses_reference: whether a frozen copy of the initial policy is kept.
    uses_sampler: whether the loss has a ratio to the sampler; then tokens that
      were not sampled by us are refused, but for those of `demonstrations`.
    granularity: of the credit: token, turn, sequence or episode.
  """

  credit: Callable[[types.Trajectory, types.Turns], types.Credit]
  loss: Callable[[types.Outputs, types.Trajectory, types.Credit], Terms]
  weigh: Callable[[types.Trajectory, types.Turns], Terms]
  optimizer: optax.GradientTransformation
  score: Callable[..., types.Trajectory] = score_nothing
  prepare: Callable[..., types.Credit] = prepare_nothing
  carry: Callable[..., tuple[types.Credit, Any]] = carry_nothing
  carried: Any = None
  measure: Callable[..., Terms] = measure_nothing
  keep: Callable[[types.Turns], np.ndarray] | None = None
  probe: Probing | None = None
  vocabulary: Callable[[types.Chunk], Terms] | None = None
  teacher: Any = dataclasses.field(default=None, compare=False, repr=False)
  teacher_adapters: Any = None
  group_size: int = 8
  demonstrations: int = 0
  greedy_members: int = 0
  branch: branching.Tree | branching.Probes | None = None
  epochs: int = 1
  minibatches: int = 1
  sampling: sampling_lib.Sampling = sampling_lib.Sampling()
  routing: Routing = Routing()
  heads: types.Heads = types.Heads()
  uses_reference: bool = False
  uses_sampler: bool = True
  granularity: str = 'episode'

  def __post_init__(self):
    sampling_lib.check_trainable(self.sampling, self.vocabulary is not None)
    if not 0 <= self.demonstrations < max(self.group_size, 1):
      raise ValueError(
        f'demonstrations={self.demonstrations} of '
        f'group_size={self.group_size} episodes leave nothing that the policy '
        'samples itself; use fewer than group_size, such as 1 of 8, or '
        '--recipe=supervised to imitate only.'
      )
    if self.demonstrations and not self.uses_sampler:
      raise ValueError(
        f'demonstrations={self.demonstrations} are mixed into groups that the '
        'policy samples, but a recipe with uses_sampler=False imitates only; '
        'set uses_sampler=True, or demonstrations=0.'
      )
    if self.branch is not None and (self.demonstrations or self.greedy_members):
      raise ValueError(
        'Groups whose episodes fork have no demonstrations and no greedy '
        f'members, got demonstrations={self.demonstrations} and '
        f'greedy_members={self.greedy_members}; set both to 0, or leave out '
        'branch.'
      )
    if self.branch is not None and not self.uses_sampler:
      raise ValueError(
        'This recipe imitates (uses_sampler=False), and demonstrations do not '
        'fork; leave out branch, or take a loss with a ratio to the sampler.'
      )


def training(
  *,
  learning_rate: float = 3e-4,
  warmup_steps: int = 0,
  decay_steps: int = 0,
  weight_decay: float = 0.0,
  beta1: float = 0.9,
  beta2: float = 0.95,
  max_gradient_norm: float = 1.0,
  epochs: int = 1,
  minibatches: int = 1,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
  repetition_penalty: float = 1.0,
  forbidden: tuple[str, ...] = (),
  forced: str = '',
  grammar: str = '',
  balance_coefficient: float = 0.0,
  router_z_coefficient: float = 0.0,
  replay_experts: bool = True,
) -> dict[str, Any]:
  """The fields of a Recipe that every maker shares.

  Args:
    learning_rate: of AdamW, after the warm-up.
    warmup_steps: optimiser steps of a linear warm-up from 0.
    decay_steps: optimiser steps after which a cosine has decayed the rate to a
      tenth; 0 keeps it.
    weight_decay: of AdamW, decoupled.
    beta1: decay of AdamW's first moment.
    beta2: decay of AdamW's second moment.
    max_gradient_norm: gradients are scaled down to this global norm.
    epochs: passes over a batch.
    minibatches: optimiser steps a pass.
    temperature: of sampling, replayed in training; above 0.
    top_k: only the likeliest tokens, so many, are sampled; 0 is off.
    top_p: only the likeliest tokens of this probability together; 1 is off.
    min_p: only tokens at least so likely, relative to the likeliest; 0 is off.
    repetition_penalty: refused in training, which cannot replay it.
    forbidden: texts of single tokens that are never sampled.
    forced: text with which every action begins.
    grammar: actions, or the path of a JSON schema of calls; empty is any text.
    balance_coefficient: of a mixture of experts: of the load-balance loss.
    router_z_coefficient: of a mixture of experts: of the router-z loss.
    replay_experts: of a mixture of experts: whether tokens see the experts that
      they were sampled with.

  Raises:
    ValueError: a setting is out of range.
  """
  if min(epochs, minibatches) < 1 or learning_rate < 0:
    raise ValueError(
      f'{epochs=} and {minibatches=} must be at least 1, and {learning_rate=} '
      'not negative.'
    )
  if min(balance_coefficient, router_z_coefficient) < 0:
    raise ValueError(
      f'{balance_coefficient=} and {router_z_coefficient=} must not be '
      'negative: the losses are minimised.'
    )
  rate = _schedule(learning_rate, warmup_steps, decay_steps)
  optimizer = optax.chain(
    optax.clip_by_global_norm(max_gradient_norm),
    optax.scale_by_adam(b1=beta1, b2=beta2),
    optax.add_decayed_weights(weight_decay),
    # With its hyperparameter in its state, where the loop reads it.
    optax.inject_hyperparams(optax.scale_by_learning_rate)(rate),
  )
  return dict(
    optimizer=optimizer,
    epochs=epochs,
    minibatches=minibatches,
    sampling=sampling_lib.Sampling(
      temperature,
      top_k,
      top_p,
      min_p,
      repetition_penalty,
      forbidden,
      forced,
      grammar,
    ),
    routing=Routing(balance_coefficient, router_z_coefficient, replay_experts),
  )


def _schedule(
  rate: float, warmup_steps: int, decay_steps: int
) -> optax.Schedule:
  """A linear rise, and then a cosine to a tenth; 0 steps leave it out."""
  found = optax.constant_schedule(rate)
  if decay_steps:
    found = optax.cosine_decay_schedule(rate, decay_steps, alpha=0.1)
  if warmup_steps:
    rise = optax.linear_schedule(0.0, rate, warmup_steps)
    found = optax.join_schedules([rise, found], [warmup_steps])
  return found
