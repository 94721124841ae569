"""benchmarks/credit.py times every estimator, and its peers do the same."""

import inspect

import jax
import numpy as np
import pytest

from agentic_jax import advantages
from benchmarks import credit_loops
from benchmarks import credit_scans
from benchmarks import credit_tasks

# Not estimators: how a subtree counts, given to `subtree_relative`, and one
# that reads texts on the host; and the numbers of situations.
_OTHERS = {'alike', 'by_size', 'merge_similar', 'situations'}
# To compile in little time what runs once.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


def test_every_estimator_has_a_task():
  public = {
    name
    for name in advantages.__all__
    if inspect.isfunction(getattr(advantages, name))
  }
  assert _OTHERS < public
  assert credit_tasks.ESTIMATORS.keys() == public - _OTHERS


@pytest.fixture(scope='module')
def batch():
  return credit_tasks.make_batch(16, 48)


@pytest.mark.parametrize('name', credit_tasks.TASKS)
def test_a_task_runs(name, batch):
  task = credit_tasks.TASKS[name]
  found = jax.jit(task.run, compiler_options=_QUICK)(batch)
  for leaf in jax.tree.leaves(found):
    assert np.all(np.isfinite(leaf))
    assert np.any(leaf), 'nothing happens on such a batch'
  assert task.bytes_per_entry > 0


def test_the_forms_that_are_compared_agree(batch):
  want = credit_tasks.TASKS['gae'].run(batch)
  for form in credit_scans.FORMS.values():
    found = jax.jit(credit_scans.gae(form), compiler_options=_QUICK)(batch)
    for one, other in zip(found, want, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_peers_have_the_tasks_that_they_are_compared_in():
  class Module:
    """Stands for rlax and torch, of which nothing is called."""

  rlax, loops = (
    credit_tasks.rlax_tasks(Module),
    credit_loops.torch_tasks(Module),
  )
  assert rlax.keys() | loops.keys() <= credit_tasks.TASKS.keys()


def test_loops_do_what_the_tasks_do(batch):
  torch = pytest.importorskip('torch')
  tensors = {k: torch.from_numpy(v.copy()) for k, v in batch.items()}
  for name, loop in credit_loops.torch_tasks(torch).items():
    ours = jax.tree.leaves(credit_tasks.TASKS[name].run(batch))
    theirs = loop(tensors)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for one, other in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
