"""Pages that choose what is compared: by rejection, by turn, by sight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.train import probing
from experiments import dpo
from experiments import rso
from experiments import sweet_rl
from experiments import vision_dpo
from tests import hand_worked
from tests import small_world
from tests import tiny_training


@functools.cache
def _batch():
  """Nine off-policy episodes of three tasks."""
  trajectory, turns = jax.tree.map(jnp.asarray, hand_worked.random_batch())
  rng = np.random.default_rng(1)
  sampler = trajectory.sampler_logprobs
  near = lambda: jnp.asarray(
    rng.normal(scale=0.5, size=sampler.shape), jnp.float32
  )
  trajectory = trajectory._replace(
    reference_logprobs=sampler + near(), teacher_logprobs=sampler + near()
  )
  return types.Outputs(sampler + near()), trajectory, turns


def _loss(made, batch):
  """The scalar of the train step, as it is compiled there."""

  def total(outputs, trajectory, turns):
    credit = made.credit(trajectory, turns)
    weights = made.weigh(trajectory, turns)['policy']
    found = made.loss(outputs, trajectory, credit)['policy']
    return jnp.sum(jnp.where(weights != 0, weights * found, 0))

  return float(jax.jit(total)(*batch))


def _implicit(batch):
  """How much likelier than the reference each token of an episode became."""
  outputs, trajectory, turns = batch
  gaps = np.float64(outputs.logprobs) - trajectory.reference_logprobs
  return hand_worked.per_episode(gaps, turns)


def _returns(turns):
  found = np.where(turns.mask[..., None], turns.rewards, 0).sum(-1)
  return np.asarray(found, np.float64)


def _softplus(x):
  return np.log1p(np.exp(x))


# RSO.


def test_rso_keeps_as_often_as_it_should():
  _, trajectory, turns = _batch()

  def kept(step):
    return rso.kept(trajectory._replace(policy_step=step), turns, 0.5)

  steps = jnp.arange(4000)[:, None, None] + jnp.zeros_like(trajectory.tokens)
  often = np.asarray(jnp.mean(jax.jit(jax.vmap(kept))(steps), axis=0))
  returns, group = _returns(turns).sum(1), np.asarray(turns.group)
  valid = group >= 0
  best = np.array([returns[group == g].max() for g in group[valid]])
  chance = np.exp((returns[valid] - best) / 0.5)
  assert (chance == 1).sum() == 3 and np.ptp(chance) > 0.3
  spread = np.sqrt(chance * (1 - chance) / 4000)
  assert np.all(np.abs(often[valid] - chance) <= 5 * spread)
  assert not often[~valid].any()


def test_rso_compares_the_best_and_the_worst_that_it_keeps():
  _, trajectory, turns = _batch()
  kept = np.asarray(rso.kept(trajectory, turns, 0.5))
  assert 3 < kept.sum() < 9, 'the draw decides nothing'
  own, returns = _implicit(_batch()), _returns(turns).sum(1)
  each = []
  for g in range(3):
    (some,) = np.nonzero(kept & (np.asarray(turns.group) == g))
    best, worst = some[np.argmax(returns[some])], some[np.argmin(returns[some])]
    if returns[best] > returns[worst]:
      each.append(own[best].sum() - own[worst].sum())
  made = rso.recipe(group_size=3, beta=0.2)
  wanted = np.mean([_softplus(-0.2 * gap) for gap in each])
  assert each and _loss(made, _batch()) == pytest.approx(wanted, rel=1e-5)


def test_rso_between_one_episode_and_all():
  _, trajectory, turns = _batch()
  alone = rso.recipe(group_size=3, acceptance_beta=1e-6)
  assert not np.any(alone.weigh(trajectory, turns)['policy'])
  every = rso.recipe(group_size=3, acceptance_beta=1e6, beta=0.1)
  wanted = _loss(dpo.recipe(group_size=3), _batch())
  assert _loss(every, _batch()) == pytest.approx(wanted)


def test_rso_draws_alike_for_the_rows_of_one_optimiser_step():
  """The loop hides the rows of other steps from `weigh`."""
  _, trajectory, turns = _batch()
  here = jnp.arange(len(trajectory.tokens))[:, None] < 4
  part = trajectory._replace(
    action_mask=trajectory.action_mask & here,
    segment=jnp.where(here, trajectory.segment, 0),
  )
  seat = jax.jit(rso.seat_kept(0.5))
  whole, some = seat(trajectory, turns), seat(part, turns)
  assert np.array_equal(some, np.where(here, whole, -1))


# V-DPO.


def test_vision_dpo_pushes_away_from_what_is_said_blindly():
  outputs, trajectory, _ = _batch()
  found = _loss(vision_dpo.recipe(group_size=3, guidance=0.0), _batch())
  assert found == pytest.approx(_loss(dpo.recipe(group_size=3), _batch()))
  blind = trajectory.teacher_logprobs
  pushed = outputs.logprobs + 0.7 * (outputs.logprobs - blind)
  guided = (outputs._replace(logprobs=pushed), *_batch()[1:])
  found = _loss(vision_dpo.recipe(group_size=3, guidance=0.7), _batch())
  assert found == pytest.approx(_loss(dpo.recipe(group_size=3), guided))


def test_vision_dpo_scores_blank_images_by_the_policy():
  _, trajectory, turns = _batch()
  images = jnp.full((len(trajectory.tokens), 1, 2, 2, 3), 9, jnp.uint8)
  seeing = trajectory._replace(images=images, teacher_logprobs=None)

  def apply(params, rows):
    said = params + jnp.max(rows.images) * jnp.ones(rows.tokens.shape)
    return types.Outputs(said)

  networks = recipe_lib.Networks(-3.0, -5.0)
  found = vision_dpo.score(apply, networks, seeing, turns)
  assert np.all(found.reference_logprobs == 4.0)
  assert np.all(found.teacher_logprobs == -3.0)
  assert found.images is images
  with pytest.raises(ValueError, match='this policy sees none.*--recipe=dpo'):
    vision_dpo.score(apply, networks, trajectory, turns)


# SWEET-RL.


def test_a_message_stands_before_the_first_action():
  (episode, *_) = tiny_training.episodes(groups=1)
  segment = episode.segments[0]
  first = int(np.argmax(segment.action_mask))
  told = sweet_rl.tell(segment, [7, 8, 9])
  assert told.tokens[first : first + 3].tolist() == [7, 8, 9]
  assert not told.action_mask[: first + 3].any()
  assert np.array_equal(np.delete(told.tokens, range(first, first + 3)),
                        segment.tokens)  # fmt: skip
  for name in ('tokens', 'turn', 'role', 'policy_step', 'sampler_logprobs'):
    old, new = (getattr(s, name)[s.action_mask] for s in (segment, told))
    assert np.array_equal(old, new) and old.dtype == new.dtype
  assert set(told.turn[first : first + 3]) == {-1}


def test_the_advantage_model_orders_episodes_by_the_sums_of_their_turns():
  outputs, trajectory, turns = _batch()
  turn = hand_worked.per_episode(trajectory.turn, turns)
  sums = [
    sum(own[t == k].mean() for k in np.unique(t))
    for own, t in zip(_implicit(_batch()), turn)
  ]
  returns, group = _returns(turns).sum(1), np.asarray(turns.group)
  each = []
  for g in range(3):
    (own,) = np.nonzero(group == g)
    best, worst = own[np.argmax(returns[own])], own[np.argmin(returns[own])]
    each.append(sums[best] - sums[worst])
  wanted = np.mean(_softplus(-np.array(each)))
  made = sweet_rl.advantage_model(group_size=3)
  assert _loss(made, _batch()) == pytest.approx(wanted, rel=1e-5)
  # The turns of which it is the sum, as the catalogue has them.
  gather = lambda x: jnp.where(
    turns.tokens >= 0, jnp.asarray(x).ravel()[turns.tokens], 0
  )
  found = preferences.turn_advantages(
    gather(outputs.logprobs),
    gather(trajectory.reference_logprobs),
    jnp.where(turns.tokens >= 0, gather(trajectory.turn), -1),
    num_turns=turns.mask.shape[1],
  )
  np.testing.assert_allclose(found.sum(1)[:9], sums[:9], rtol=1e-4, atol=1e-5)


def _turn_pairs(turns, worth):
  """(episode, turn) of the best and the worst turn of each situation."""
  cells: dict = {}
  for e, k in zip(*np.nonzero(turns.mask)):
    key = int(turns.group[e]), int(turns.state[e, k])
    cells.setdefault(key, []).append((float(worth[e, k]), e, k))
  pairs = [(max(c), min(c)) for c in cells.values()]
  return [(b[1:], w[1:]) for b, w in pairs if b[0] > w[0]]


@pytest.mark.parametrize('learned', [False, True])
def test_sweet_rl_is_a_loop_over_situations(learned, monkeypatch):
  batch = _batch()
  _, trajectory, turns = batch
  turn = hand_worked.per_episode(trajectory.turn, turns)
  if learned:
    # A critic that says nothing of the return.
    monkeypatch.setattr(sweet_rl.distill, 'load_teacher', lambda _: {})
    gaps = hand_worked.per_episode(trajectory.teacher_logprobs, turns)
    worth = np.zeros(turns.mask.shape)
    for e, k in zip(*np.nonzero(turns.mask)):
      worth[e, k] = np.float64(gaps[e][turn[e] == k]).mean()
  else:
    worth = np.cumsum(_returns(turns)[:, ::-1], axis=1)[:, ::-1]
  pairs = _turn_pairs(turns, worth)
  assert len(pairs) >= 3
  own = _implicit(batch)
  gap = lambda e, k: own[e][turn[e] == k].sum()
  each = [_softplus(-0.1 * (gap(*b) - gap(*w))) for b, w in pairs]
  made = sweet_rl.recipe(judge='run' if learned else '', group_size=3)
  assert _loss(made, batch) == pytest.approx(np.mean(each), rel=1e-5)
  assert bool(made.probe) == learned


def test_critic_and_reference_are_asked_with_the_truth(monkeypatch):
  episodes = tiny_training.episodes(groups=1)
  monkeypatch.setattr(sweet_rl.hindsight, 'truth', lambda *_: ['so', 'not'])
  words = small_world.TOKENIZER.observation('so')
  seen = []

  def program(params, rows):
    seen.append(rows)
    return np.where(rows.action_mask, params * rows.tokens, np.nan)

  def fill(networks):
    return probing.fill(
      sweet_rl.probing(),
      program,
      networks,
      episodes,
      small_world.world(),
      tiny_training.shape(),
    )[0]

  filled = fill(recipe_lib.Networks(np.nan, 2.0, 5.0))
  for old, new in zip(episodes, filled):
    for before, segment in zip(old.segments, new.segments):
      wanted = np.where(before.action_mask, 3.0 * before.tokens, 0)
      np.testing.assert_allclose(segment.teacher_logprobs, wanted)
  (row,) = np.nonzero(seen[0].segment[0] == 1)
  said = seen[0].tokens[0][row].tolist()
  first = int(np.argmax(seen[0].action_mask[0]))
  assert said[first - len(words) : first] == words
  with pytest.raises(ValueError, match="asks the network 'teacher'.*a teacher"):
    fill(recipe_lib.Networks(1.0, 2.0))


def test_the_first_policy_samples_for_the_advantage_model(monkeypatch):
  episodes = tiny_training.episodes(groups=1)
  failed = episodes[0]._replace(failure='hung', segments=())
  asked = []

  class Source:
    def batch(self, step, params):
      asked.append((step, params))
      return rollout.Batch([failed, *episodes[1:]], {})

    def position(self):
      return {'at': 3}

    def restore(self, position):
      asked.append(position)

  monkeypatch.setattr(sweet_rl.hindsight, 'truth', lambda *_: ['so'])
  told = sweet_rl.Told(Source(), 'first', small_world.world())
  found = told.batch(4, 'now').episodes
  told.restore(told.position())
  assert asked == [(4, 'first'), {'at': 3}]
  words = small_world.TOKENIZER.observation('so')
  assert found[0] is failed
  for before, after in zip(episodes[1:], found[1:]):
    for old, new in zip(before.segments, after.segments):
      assert len(new.tokens) == len(old.tokens) + len(words)


# What must be refused.


@pytest.mark.parametrize(
  'page, settings, message',
  [
    (rso, {'form': 'ipo'}, "form='ipo' is unknown.*dpo, hinge"),
    (rso, {'acceptance_beta': 0.0}, 'must be positive'),
    (rso, {'beta': -1.0}, 'must be positive'),
    (rso, {'group_size': 1}, 'nothing to compare'),
    (vision_dpo, {'guidance': -0.5}, 'would pull towards'),
    (vision_dpo, {'beta': 0.0}, 'must be positive'),
    (sweet_rl, {'beta': 0.0}, 'must be positive'),
    (sweet_rl, {'group_size': 1}, 'nothing to compare'),
  ],
)
def test_what_contradicts_itself_is_refused(page, settings, message):
  with pytest.raises(ValueError, match=message):
    page.recipe(**settings)
