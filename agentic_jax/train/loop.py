"""The one loop: batches from a source, a recipe applied, a run on disk."""

from collections.abc import Callable, Mapping
import pathlib
import re
import time
from typing import Any, NamedTuple, NoReturn, Protocol

import jax
import numpy as np

from agentic_jax import batching
from agentic_jax import checkpoint as checkpoint_lib
from agentic_jax import metrics as metrics_lib
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.train import ahead
from agentic_jax.train import directory
from agentic_jax.train import learner as learner_lib
from agentic_jax.train import records
from agentic_jax.train import signals
from agentic_jax.train import step as step_lib
from agentic_jax.train import versions

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


# (step, params, report) -> metrics, and the episodes that were played; `report`
# is told (episodes finished, all).
Evaluate = Callable[
  [int, Any, Callable[[int, int], None]],
  tuple[dict[str, float], list[types.Episode]],
]


class Plan(NamedTuple):
  """What a run does, besides its recipe and source."""

  config: config_lib.TransformerConfig
  shape: batching.Shape
  mesh: jax.sharding.Mesh
  workdir: pathlib.Path
  steps: int
  pieces: Callable[[list[int]], list[bytes]]  # Of the tokenizer, for records.
  what: str = 'training'  # Said in the progress display.
  world: Any = None  # Of the rollout, for recipes with probes.
  evaluate: Evaluate | None = None
  evaluate_every: int = 0  # Steps; 0 is only before and after.
  checkpoint_every: int = 20  # Steps.
  prefix_tree: float = 0.0  # M U / (rows T) of `batching.prefix_tree`; 0: none.
  staleness: int = 0  # Batches that the parameters which sample lag behind.
  swap: str = ''  # When they change within a batch, see `versions.parse`.
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


def _swap_of(plan: Plan, recipe: recipe_lib.Recipe) -> versions.Swap | None:
  """When parameters change within a batch.

  Raises:
    ValueError: the recipe asks who sampled an episode, and nobody alone did.
  """
  swap = versions.parse(plan.swap)
  if swap is None or (recipe.probe is None and recipe.branch is None):
    return swap
  asks = 'asks the policy that sampled an episode' if recipe.probe else 'forks'
  raise ValueError(
    f'--swap={plan.swap}: this recipe {asks}, and with parameters that change '
    'between turns no single policy sampled one; leave --swap out.'
  )


class _Run:
  """The state of one `run`."""

  def __init__(self, recipe, source, plan: Plan, state):
    self.plan = plan
    self.learner = learner_lib.Learner(recipe, plan, state)
    self.ahead = ahead.Ahead(
      source,
      plan.staleness,
      lambda params: lora.join(params, self.learner.state.frozen),
      _swap_of(plan, recipe),
    )
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
    versions.cut_back(plan.workdir, self.step)
    try:
      with (
        metrics_lib.Progress(plan.what, plan.steps, start=self.step) as shown,
        signals.Guard() as guard,
      ):
        if self.step:
          shown.message(_resumed(plan, self.step))
        if self.step == 0 and plan.evaluate is not None:
          self.writer.write(0, self._evaluate(shown))
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
      self.ahead.close()
      self.checkpoints.close()
      self.compilations.close()
      self.writer.close()
    return Result(self.learner.state, self.learner.reference, self._summary())

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
    batch, policy, staleness, seconds, swaps = self.ahead.next(
      self.step, self.learner.state.params, self.plan.steps
    )
    record = dict(batch.metrics)
    if self.plan.staleness:
      record['rollout/staleness'] = float(staleness)
      left = self.plan.steps - 1 - self.step
      ahead_of_it = min(self.plan.staleness, left)
      record['ledger/batches_in_flight'] = float(ahead_of_it)
    if swaps is not None:
      versions.write(self.plan.workdir, self.step, swaps.schedule, swaps.stale)
    self.tokens += int(record.get('rollout/tokens', 0))
    began = time.monotonic()
    record['time/sample'] = began - started
    episodes, probed = self.learner.probe(batch.episodes, policy)
    record |= probed
    try:
      trained, credit, trajectory = self.learner.learn(episodes)
    except learner_lib.InfiniteError as error:
      self._stop_infinite(error)
    record |= trained
    self.step += 1
    record['time/train'] = time.monotonic() - began
    if self._records_due():
      advantages = records.per_segment(
        np.asarray(credit.advantages), trajectory.episode, trajectory.segment
      )
      few = episodes[: self.plan.record_episodes]
      self._write(few, split='train', advantages=advantages)
    every = self.plan.evaluate_every
    last = self.step == self.plan.steps
    if self.plan.evaluate and (last or (every and self.step % every == 0)):
      record |= self._evaluate(shown)
    record['time/step'] = time.monotonic() - started
    sampled = record.get('rollout/tokens', 0.0)
    if sampled:
      record['time/tokens_per_second'] = sampled / seconds
    self.seconds += record['time/step']
    return record

  def _write(self, episodes, **settings) -> None:
    records.write(
      self.plan.workdir, self.plan.pieces, episodes, step=self.step, **settings
    )

  def _records_due(self) -> bool:
    every = self.plan.record_every
    return bool(every) and (self.step == 1 or self.step % every == 0)

  def _evaluate(self, shown) -> dict[str, float]:
    began = time.monotonic()
    shown.status('evaluating')
    assert self.plan.evaluate is not None
    with self.ahead.paused():
      record, played = self.plan.evaluate(
        self.step, self.learner.state.policy, shown.within('evaluating')
      )
    self._write(played)
    return record | {'time/evaluate': time.monotonic() - began}

  def _stop_infinite(self, error: learner_lib.InfiniteError) -> NoReturn:
    """Ends the run before a broken update is ever saved."""
    self.checkpoints.wait()
    last = self.checkpoints.latest_step()
    good = 'There is no checkpoint yet'
    if last is not None:
      good = f'The last good checkpoint is that of step {last}'
    raise FloatingPointError(
      f'Step {self.step + 1}: not finite: {", ".join(error.names[:8])}. '
      f'{good}, in {self.plan.workdir}. Lower learning_rate by --set, or look '
      'at the rewards of this step.'
    ) from error

  def _save(self) -> None:
    host = {
      'step': self.step,
      'tokens': self.tokens,
      'seconds': self.seconds,
      'source': self.ahead.position(self.step),
    }
    self.checkpoints.save(self.step, self._arrays(), host)

  def _arrays(self) -> dict[str, Any]:
    """What a checkpoint holds: what changes, and what samples ahead."""
    arrays = self.learner.arrays()
    older = self.ahead.arrays(self.step, self.learner.state.params)
    return arrays | ({'older': older} if older else {})

  def _restore(self) -> None:
    self._keep_frozen()
    restored = self.checkpoints.restore_latest(_template(self._arrays()))
    if restored is None:
      return
    self.learner.take(restored.arrays)
    host = restored.host
    self.step, self.tokens = host['step'], host['tokens']
    self.seconds = host['seconds']
    older = restored.arrays.get('older', [])
    self.ahead.restore(self.step, host['source'], older)

  def _keep_frozen(self) -> None:
    """Saves what is frozen, once a run, or takes what was saved."""
    state = self.learner.state
    arrays = {'frozen': state.frozen}
    if arrays['frozen'] is None:
      return
    with directory.frozen_of(self.plan.workdir) as kept:
      if self.checkpoints.latest_step() is None:
        kept.save(0, arrays, {})
      else:
        frozen = kept.restore(0, _template(arrays)).arrays['frozen']
        self.learner.state = state._replace(frozen=frozen)


def _template(arrays: Any) -> Any:
  """The shapes, types and places of arrays."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    arrays,
  )
