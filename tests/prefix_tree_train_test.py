"""Runs on prefix trees: losses, gradients and metrics of the rows."""

import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from experiments import pages
from tests import prefix_tree_test
from tests import thorough
from tests import tiny_training
from tests import tree_batches


def _leaves():
  """Two groups of four leaves; of 41 entries, and of 48."""
  trees = (
    [(0, 1, 2), (0, 1, 3), (0, 4), (5, 6, 7)],
    [(0, 1, 2), (3, 4, 5), (6, 7), (8, 9)],
  )
  return [
    tree_batches.leaf(member, path, float(member % 3), draw=draw)
    for draw, paths in enumerate(trees)
    for member, path in enumerate(paths)
  ]


def _context_managed():
  """Episodes of several segments that begin alike, in packed rows."""
  rng = np.random.default_rng(3)
  found = []
  for draw in range(2):
    prompt = tiny_training.segment(rng, [(-1, 6)])
    for member in range(4):
      said = tiny_training.segment(rng, [(0, 3), (-1, 2)])
      more = tiny_training.segment(rng, [(1, 4)])
      shown = said._replace(
        action_mask=np.zeros(5, bool),
        temperature=np.ones(5, np.float32),
        sampler_logprobs=np.zeros(5, np.float32),
      )
      first = prefix_tree_test.joined(prompt, said, 6)
      second = prefix_tree_test.joined(
        prefix_tree_test.joined(prompt, shown, 6), more, 11
      )
      rewards = [0.0, float(rng.integers(3))]
      found.append(
        tiny_training.episode(draw, member, rewards, [first, second])
      )
  return found


# Two microbatches of a group each. Of leaves, one of them finds no room.
_RUNS = {
  'tree_grpo': (_leaves, dict(trees=2, expansions=1, kl_coefficient=0.0), 18),
  'treepo': (_leaves, dict(first=1), 18),
  'ppo': (_context_managed, dict(critic='separate', epochs=2), 33),
  'grpo': (_context_managed, dict(kl_coefficient=0.1), 33),
}


@pytest.mark.parametrize('name', thorough.some(_RUNS, len(_RUNS)))
def test_a_run_learns_the_same(name, tmp_path):
  make, settings, row_tokens = _RUNS[name]
  recipe = pages.load(name)(learning_rate=3e-3, **settings)
  shape = batching.Shape(8, row_tokens, 4, 8, 3, 12)
  if name == 'tree_grpo':
    shape = shape._replace(turn_fields=('node',))

  def learn(share):
    result = tiny_training.learn(
      recipe,
      make(),
      tmp_path / str(share),
      size=shape,
      steps=2,
      prefix_tree=share,
    )
    assert result.summary['recompilations_after_warmup'] == 0
    records = metrics.read(tmp_path / str(share))
    return result.state, [
      {k: v for k, v in record.items() if not k.startswith('time/')}
      for record in records
    ]

  (flat, wanted), (tree, found) = learn(0.0), learn(0.6)
  gradient = tiny_training.by_name(flat.optimizer_state.gradient)
  assert max(np.max(np.abs(x)) for x in gradient.values()) > 1e-3
  tiny_training.assert_close(
    tiny_training.by_name(tree.optimizer_state.gradient), gradient, 1e-5
  )
  assert len(found) == len(wanted) == 2
  for record, other in zip(found, wanted, strict=True):
    fitting = record.pop('prefix_tree/fitting')
    assert fitting == (0.5 if make is _leaves else 1.0)
    assert (record.pop('prefix_tree/wanted') > 0.6) == (make is _leaves)
    assert record.keys() == other.keys()
    for key, value in other.items():
      assert record[key] == pytest.approx(value, abs=2e-5, rel=1e-4), key
