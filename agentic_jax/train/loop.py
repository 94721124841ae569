"""The one loop: batches from a source, a recipe applied, a run on disk."""

from collections.abc import Callable, Mapping
import pathlib
import re
import time
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agentic_jax import batching
from agentic_jax import checkpoint as checkpoint_lib
from agentic_jax import metrics as metrics_lib
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.train import compiled
from agentic_jax.train import directory
from agentic_jax.train import records
from agentic_jax.train import signals
from agentic_jax.train import step as step_lib

# A warning is not repeated for this many steps.
_QUIET_STEPS = 50


class Source(Protocol):
  """Where batches of episodes come from."""

  def batch(self, step: int, params: Any) -> Any:
    """Episodes sorted by (draw, member), and metrics, for step `step`."""

  def position(self) -> Mapping[str, Any]:
    """What `restore` needs to go on from here, as JSON."""

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to where `position` was taken."""


# (step, params) -> metrics, and the episodes that were played.
Evaluate = Callable[[int, Any], tuple[dict[str, float], list[types.Episode]]]


class Plan(NamedTuple):
  """What a run does, besides its recipe and source."""

  config: config_lib.TransformerConfig
  shape: batching.Shape
  mesh: jax.sharding.Mesh
  workdir: pathlib.Path
  steps: int
  pieces: Callable[[list[int]], list[bytes]]  # Of the tokenizer, for records.
  what: str = 'training'  # Said in the progress display.
  evaluate: Evaluate | None = None
  evaluate_every: int = 0  # Steps; 0 is only before and after.
  checkpoint_every: int = 20  # Steps.
  record_every: int = 10  # Steps between recorded training episodes.
  record_episodes: int = 16  # How many of them.


class Result(NamedTuple):
  """What a run ends with."""

  state: step_lib.TrainState
  reference: Any
  summary: dict[str, float]


def run(
  recipe: recipe_lib.Recipe,
  source: Source,
  plan: Plan,
  state: step_lib.TrainState,
) -> Result:
  """Trains for `plan.steps` steps, resuming where an earlier run stopped.

  Args:
    recipe: the algorithm.
    source: of batches.
    plan: what to do and where.
    state: to begin with; its parameters are the reference. Its arrays are given
      up: the updates reuse their memory.

  Returns:
    The last state. The run directory holds the rest.

  Raises:
    FloatingPointError: a loss or gradient is not finite; names the step, the
      tensor and the last good checkpoint.
    signals.Stopped: SIGTERM came; a checkpoint was written first.
  """
  return _Run(recipe, source, plan, state).go()


# Whatever a recipe's `measure` calls its numbers.
_MEASURES = {
  'policy/<name>': metrics_lib.Definition(
    'a measure of the recipe, mean over action tokens', '1'
  )
}


def _resumed(plan: Plan, step: int) -> str:
  """What is said of a run that was begun before."""
  if step >= plan.steps:
    return (
      f'{plan.workdir} has finished its {step} steps; --steps=N with a larger '
      'N goes on.'
    )
  return f'Going on from step {step}, the last checkpoint of {plan.workdir}.'


class _Run:
  """The state of one `run`."""

  def __init__(self, recipe, source, plan: Plan, state):
    self.recipe, self.source, self.plan = recipe, source, plan
    self.programs = compiled.compile_programs(
      plan.config, recipe, plan.shape, plan.mesh
    )
    self.state = jax.device_put(state, self.programs.state_shardings)
    self.reference = None
    if recipe.uses_reference:
      # A copy: the policy's own buffers are donated to its updates. What is
      # frozen it shares.
      self.reference = jax.tree.map(jnp.copy, self.state.params)
    self.step = 0
    self.tokens = 0
    self.seconds = 0.0
    self.compilations = metrics_lib.CompileCounter()
    self.checkpoints = checkpoint_lib.Checkpoints(plan.workdir / 'checkpoints')
    self.warm = False  # Whether everything has compiled.
    self.writer: Any = None
    self.warned: dict[str, int] = {}  # By kind of warning: at which step.

  def go(self) -> Result:
    plan = self.plan
    self._restore()
    self.writer = metrics_lib.Writer(plan.workdir, definitions=_MEASURES)
    self.writer.cut_back(self.step if self.step else -1)
    try:
      with (
        metrics_lib.Progress(plan.what, plan.steps, start=self.step) as shown,
        signals.Guard() as guard,
      ):
        if self.step:
          shown.message(_resumed(plan, self.step))
        if self.step == 0 and plan.evaluate is not None:
          shown.status('evaluating')
          self.writer.write(0, self._evaluate())
        warm = self.step
        while self.step < plan.steps:
          record = self._step(shown)
          if self.step == warm + 1:
            self.compilations.mark()
            self.warm = True
          self.writer.write(self.step, record)
          shown.update(self.step, record)
          self._warn(shown, record)
          due = self.step % plan.checkpoint_every == 0
          if due or self.step == plan.steps or guard.stopping:
            self._save()
          if guard.stopping:
            raise signals.Stopped(self.step, plan.workdir)
    finally:
      self.checkpoints.close()
      self.compilations.close()
      self.writer.close()
    return Result(self.state, self.reference, self._summary())

  def _warn(self, shown, record) -> None:
    """Says what is worth a warning, and again only after a while."""
    for text in metrics_lib.warnings_of(record):
      kind = re.sub(r'[-\d.%]+', '', text)
      if self.step - self.warned.get(kind, -_QUIET_STEPS) >= _QUIET_STEPS:
        self.warned[kind] = self.step
        shown.message(f'Warning, step {self.step}: {text}')

  def _summary(self) -> dict[str, float]:
    return {
      'steps': self.step,
      'tokens_sampled': self.tokens,
      'seconds_training': self.seconds,
      'recompilations_after_warmup': (
        len(self.compilations.since_mark) if self.warm else 0
      ),
    }

  def _step(self, shown) -> dict[str, float]:
    """One batch, all its optimiser steps, and the metrics of both."""
    started = time.monotonic()
    batch = self.source.batch(self.step, self.state.policy)
    record = dict(batch.metrics)
    self.tokens += int(record.get('rollout/tokens', 0))
    began = time.monotonic()
    record['time/sample'] = began - started
    trained, credit, trajectory = self._learn(batch.episodes)
    record |= trained
    self.step += 1
    record['time/train'] = time.monotonic() - began
    if self._records_due():
      advantages = records.per_segment(
        np.asarray(credit.advantages), trajectory.episode, trajectory.segment
      )
      few = batch.episodes[: self.plan.record_episodes]
      records.write(self.plan, self.step, 'train', few, advantages)
    every = self.plan.evaluate_every
    last = self.step == self.plan.steps
    if self.plan.evaluate and (last or (every and self.step % every == 0)):
      shown.status('evaluating')
      record |= self._evaluate()
    record['time/step'] = time.monotonic() - started
    sampled = record.get('rollout/tokens', 0.0)
    if sampled:
      record['time/tokens_per_second'] = sampled / record['time/sample']
    self.seconds += record['time/step']
    return record

  def _records_due(self) -> bool:
    every = self.plan.record_every
    return bool(every) and (self.step == 1 or self.step % every == 0)

  def _evaluate(self) -> dict[str, float]:
    began = time.monotonic()
    assert self.plan.evaluate is not None
    record, played = self.plan.evaluate(self.step, self.state.policy)
    records.write(self.plan, self.step, 'evaluate', played, None)
    return record | {'time/evaluate': time.monotonic() - began}

  def _learn(
    self, episodes
  ) -> tuple[dict[str, float], types.Credit, types.Trajectory]:
    """All optimiser steps of a batch: metrics, and what was trained on."""
    recipe, shape, programs = self.recipe, self.plan.shape, self.programs
    stacked = batching.stack(episodes, shape)
    self._refuse_foreign(stacked.trajectory)
    scored = {
      name: np.zeros(stacked.trajectory.tokens.shape, np.float32)
      for name in programs.scored_fields
    }
    trajectory = stacked.trajectory._replace(**scored)
    if not recipe.routing.replay:
      trajectory = trajectory._replace(experts=None)
    trajectory, turns = programs.place((trajectory, stacked.turns))
    size, used = shape.microbatch_rows, stacked.microbatches
    networks = recipe_lib.Networks(self.state.policy, self._reference())
    if scored:
      for i in range(used):
        start = jnp.int32(i * size)
        trajectory = programs.score(networks, trajectory, turns, start)
    credit = programs.credit(trajectory, turns)
    credit = programs.prepare(self.state.policy, trajectory, credit, used)
    collected = []
    for _ in range(recipe.epochs):
      for part in np.array_split(np.arange(used), recipe.minibatches):
        if len(part):
          collected.append(self._update(trajectory, turns, credit, part))
    return self._average(collected), credit, stacked.trajectory

  def _reference(self) -> Any:
    if self.reference is None:
      return None
    return lora.join(self.reference, self.state.frozen)

  def _update(self, trajectory, turns, credit, part) -> dict[str, float]:
    """One optimiser step on the microbatches named in `part`."""
    programs, size = self.programs, self.plan.shape.microbatch_rows
    first, last = int(part[0]) * size, (int(part[-1]) + 1) * size
    weights = programs.weigh(
      trajectory, turns, jnp.int32(first), jnp.int32(last)
    )
    grads, sums = programs.zero(), []
    for i in part:
      grads, more = programs.accumulate(
        self.state.params,
        self.state.frozen,
        grads,
        trajectory,
        credit,
        weights,
        jnp.int32(int(i) * size),
      )
      sums.append(more)
    return self._apply(grads, sums)

  def _apply(self, grads, sums) -> dict[str, float]:
    frozen = self.state.frozen
    state, norm, finite = self.programs.update(
      self.state._replace(frozen=None), grads
    )
    state = state._replace(frozen=frozen)
    total = jax.tree.map(lambda *x: float(sum(np.asarray(y) for y in x)), *sums)
    self._refuse_infinite(total.terms, finite)
    tokens = max(total.tokens, 1.0)
    record = {f'policy/{k}': v / tokens for k, v in total.means.items()}
    record |= {f'train/loss_{k}': v for k, v in total.terms.items()}
    record['train/loss'] = sum(total.terms.values())
    record['train/gradient_norm'] = float(norm)
    record |= self._learning_rate(state)
    self.state = state
    return record

  def _learning_rate(self, state) -> dict[str, float]:
    """The rate of an optimiser that keeps it in its state, else nothing."""
    held = optax.tree.get_all_with_path(state.optimizer_state, 'learning_rate')
    rates = [value for _, value in held if isinstance(value, jax.Array)]
    if len(rates) != 1:
      return {}
    return {'train/learning_rate': float(rates[0])}

  def _refuse_infinite(self, terms: Mapping[str, float], finite: Any) -> None:
    """Stops the run before a broken update is ever saved."""
    bad = [f'loss term {k!r}' for k, v in terms.items() if not np.isfinite(v)]
    bad += [
      f'gradient of {jax.tree_util.keystr(path)}'
      for path, good in jax.tree_util.tree_leaves_with_path(finite)
      if not good
    ]
    if bad:
      self.checkpoints.wait()
      last = self.checkpoints.latest_step()
      good = 'There is no checkpoint yet'
      if last is not None:
        good = f'The last good checkpoint is that of step {last}'
      raise FloatingPointError(
        f'Step {self.step + 1}: not finite: {", ".join(bad[:8])}. {good}, in '
        f'{self.plan.workdir}. Lower learning_rate by --set, or look at the '
        'rewards of this step.'
      )

  def _average(self, collected) -> dict[str, float]:
    if not collected:
      return {}
    first, last = collected[0], collected[-1]
    found = {k: float(np.mean([c[k] for c in collected])) for k in first}
    # Later updates leave the sampler behind, which is no fault of sampling.
    chosen = {'policy/ratio_mismatch': first, 'train/learning_rate': last}
    return found | {k: at[k] for k, at in chosen.items() if k in found}

  def _refuse_foreign(self, trajectory) -> None:
    foreign = trajectory.action_mask & (trajectory.policy_step < 0)
    if self.recipe.uses_sampler and np.any(foreign):
      raise ValueError(
        f'{int(foreign.sum())} action tokens were not sampled by this policy, '
        'but the loss of this recipe takes a ratio to their sampler; train on '
        'them with --recipe=supervised, or a loss without a ratio.'
      )

  def _save(self) -> None:
    host = {
      'step': self.step,
      'tokens': self.tokens,
      'seconds': self.seconds,
      'source': self.source.position(),
    }
    self.checkpoints.save(self.step, self._arrays(), host)

  def _arrays(self) -> dict[str, Any]:
    """What changes in a run."""
    state = self.state._replace(frozen=None)
    return {'state': state, 'reference': self.reference}

  def _restore(self) -> None:
    self._keep_frozen()
    restored = self.checkpoints.restore_latest(_template(self._arrays()))
    if restored is None:
      return
    arrays, host = restored.arrays, restored.host
    self.state = arrays['state']._replace(frozen=self.state.frozen)
    self.reference = arrays['reference']
    self.step, self.tokens = host['step'], host['tokens']
    self.seconds = host['seconds']
    self.source.restore(host['source'])

  def _keep_frozen(self) -> None:
    """Saves what is frozen, once a run, or takes what was saved."""
    arrays = {'frozen': self.state.frozen}
    if arrays['frozen'] is None:
      return
    with directory.frozen_of(self.plan.workdir) as kept:
      if self.checkpoints.latest_step() is None:
        kept.save(0, arrays, {})
      else:
        frozen = kept.restore(0, _template(arrays)).arrays['frozen']
        self.state = self.state._replace(frozen=frozen)


def _template(arrays: Any) -> Any:
  """The shapes, types and places of arrays."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    arrays,
  )
