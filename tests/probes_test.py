"""Probes: packed in rows, answered by whoever sampled, absorbed on the host."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import environments
from agentic_jax import metrics
from agentic_jax import probes
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import transformer
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.train import probing
from experiments import hindsight
from experiments import igpo
from tests import small_world
from tests import tiny_training


def with_answers(episodes):
  """Episodes whose tasks have answers, and whose turns were answered."""
  found = []
  for number, episode in enumerate(episodes):
    turns = tuple(
      turn._replace(observation=types.Observation(f'said {number} {t}'))
      for t, turn in enumerate(episode.turns)
    )
    task = episode.task._replace(answer=f'{episode.draw}7')
    found.append(episode._replace(task=task, turns=turns))
  return found


def learn(recipe, episodes, workdir, *, world=None, steps=1, mesh=''):
  """The loop on the same episodes again and again."""
  plan = train.Plan(
    config=tiny_training.config(recipe),
    shape=tiny_training.shape(),
    mesh=sharding.make_mesh(mesh),
    workdir=workdir,
    steps=steps,
    pieces=tiny_training.TOKENIZER.pieces,
    world=world,
    record_every=1,
  )
  state = tiny_training.state_of(recipe)
  return train.run(recipe, tiny_training.Fixed(episodes), plan, state)


def test_places_and_histories():
  rng = np.random.default_rng(0)
  one = tiny_training.segment(rng, [(-1, 3), (0, 2), (-1, 1), (1, 4)])
  two = tiny_training.segment(rng, [(-1, 5), (3, 2)])
  episode = tiny_training.episode(0, 0, [0.0] * 4, [one, two])
  found = probes.places(episode)
  assert found == [(0, 3, 5), (0, 6, 10), None, (1, 5, 7)]
  np.testing.assert_array_equal(
    probes.history(episode, found[1]), one.tokens[:6]
  )
  np.testing.assert_array_equal(
    probes.history(episode, found[3]), two.tokens[:5]
  )


def test_probes_are_packed_in_order_and_never_cut():
  rng = np.random.default_rng(0)
  asked = [
    probes.make(
      rng.integers(1, 200, a), rng.integers(1, 200, b), turn=i, temperature=0.5
    )
    for i, (a, b) in enumerate(rng.integers(1, 6, (23, 2)))
  ]
  seen = []
  for laid in probes.lay_out(asked, rows=3, row_tokens=12):
    trajectory = laid.trajectory
    assert trajectory.tokens.shape == (3, 12)
    used = np.zeros((3, 12), bool)
    for number, (row, start) in laid.starts.items():
      here = row, slice(start, start + len(asked[number].tokens))
      assert not np.any(used[here])
      used[here] = True
      np.testing.assert_array_equal(
        trajectory.tokens[here], asked[number].tokens
      )
      np.testing.assert_array_equal(
        trajectory.action_mask[here], asked[number].mask
      )
      assert len(set(trajectory.segment[here])) == 1
      assert trajectory.position[here].tolist() == list(range(used[here].size))
      assert np.all(trajectory.temperature[here] == 0.5)
      seen.append(number)
    assert np.array_equal(trajectory.segment > 0, used)
  assert seen == list(range(23))
  assert not list(probes.lay_out([], rows=3, row_tokens=12))


def test_what_cannot_be_asked_is_refused():
  lay_out = lambda probe: list(probes.lay_out([probe], rows=1, row_tokens=8))
  with pytest.raises(ValueError, match='has 9 tokens, but a row .* has 8'):
    lay_out(probes.make([1] * 5, [2] * 4, turn=0))
  with pytest.raises(ValueError, match='first token, which nothing precedes'):
    lay_out(probes.make([], [2] * 4, turn=0))


def test_a_long_message_keeps_its_ends():
  assert probes.shorten([1, 2, 3], 4) == [1, 2, 3]
  assert probes.shorten(list(range(9)), 4) == [0, 1, 7, 8]
  assert probes.shorten(list(range(9)), 5) == [0, 1, 2, 7, 8]


def _recording(absorbed):
  """Igpo's probes; what was answered is kept."""
  made = igpo.recipe(group_size=2)

  def absorb(episode, asked, logprobs):
    absorbed.append((episode, asked, logprobs))
    return made.probe.absorb(episode, asked, logprobs)

  return dataclasses.replace(made, probe=made.probe._replace(absorb=absorb))


def test_a_probe_is_answered_by_the_policy_that_sampled(tmp_path):
  """Packed among others, as alone in a row; and none but that policy."""
  episodes = with_answers(tiny_training.episodes())
  absorbed = []
  recipe = _recording(absorbed)
  config = tiny_training.config(recipe)
  params = tiny_training.state_of(recipe).params
  learn(recipe, episodes, tmp_path, world=small_world.world())
  assert len(absorbed) == len(episodes)
  outputs = jax.jit(functools.partial(transformer.outputs, config))
  for episode, asked, logprobs in absorbed[::3]:
    assert [probe.turn for probe in asked] == [0, 1]
    for probe, found in zip(asked, logprobs, strict=True):
      text = small_world.TOKENIZER.decode(probe.tokens[-4:])
      assert text == f'<answer>{episode.draw}7</answer>'
      assert found.shape == (2,) and probe.mask.tolist()[-4:] == [0, 1, 1, 0]
      (alone,) = probes.lay_out([probe], rows=1, row_tokens=24)
      wanted = np.asarray(outputs(params, alone.trajectory).logprobs)[0]
      np.testing.assert_allclose(
        found, wanted[: len(probe.mask)][probe.mask], atol=1e-5
      )


@pytest.mark.parametrize('page', [igpo, hindsight])
def test_it_compiles_once_and_tokens_stay(page, tmp_path):
  episodes = with_answers(tiny_training.episodes())
  made = page.recipe(group_size=2)
  result = learn(made, episodes, tmp_path, world=small_world.world(), steps=3)
  assert result.summary['recompilations_after_warmup'] == 0
  records = metrics.read(tmp_path)
  assert all(r['probe/probes'] > 0 and 'time/probe' in r for r in records)
  # Other parameters, other answers.
  assert len({r['probe/logprob'] for r in records}) == 3
  written = (tmp_path / 'episodes' / 'step_000001.jsonl').read_text()
  assert 'answer>' not in written


def test_a_run_without_probes_pays_nothing(tmp_path, monkeypatch):
  def never(*_, **__):
    raise AssertionError('asked')

  monkeypatch.setattr(probing, 'fill', never)
  recipe = recipe_lib.grpo(group_size=2)
  learn(recipe, tiny_training.episodes(), tmp_path)
  assert not [k for k in metrics.read(tmp_path)[-1] if 'probe' in k]


def _fill(made, episodes, world=None, program=None):
  program = program or (lambda params, rows: np.zeros(rows.tokens.shape))
  return probing.fill(
    made, program, recipe_lib.Networks('policy'), episodes,
    world or small_world.world(), tiny_training.shape(),
  )  # fmt: skip


def test_failed_episodes_and_twins():
  episodes = with_answers(tiny_training.episodes(groups=1))
  asked = []

  def program(params, rows):
    asked.append(int(rows.action_mask.sum()))
    return np.full(rows.tokens.shape, -1.0, np.float32)

  probe = igpo.recipe(group_size=2).probe
  twins = [episodes[0], episodes[0]._replace(member=1)]
  filled, record = _fill(probe, twins, program=program)
  assert record['probe/probes'] == 2 and sum(asked) == 4
  assert record['probe/logprob'] == -1 and record['probe/reward'] == 0
  assert [t.reward['process'] for t in filled[1].turns[:1]] == [0.0]
  failed = [e._replace(failure='raised') for e in episodes]
  filled, record = _fill(probe, failed)
  assert filled == failed and record['probe/probes'] == 0


def test_what_a_probe_must_not_do():
  episodes = with_answers(tiny_training.episodes(groups=1))
  probe = igpo.recipe(group_size=2).probe

  def leak(episode, asked, logprobs):
    del logprobs
    segment = episode.segments[0]
    longer = segment._replace(tokens=asked[0].tokens)
    return episode._replace(segments=(longer, *episode.segments[1:]))

  with pytest.raises(ValueError, match='changed the tokens of the episode'):
    _fill(probe._replace(absorb=leak), episodes)
  with pytest.raises(ValueError, match='raise extra_tokens'):
    _fill(probe._replace(extra_tokens=-8), episodes)
  with pytest.raises(ValueError, match='Plan.*world=world'):
    probing.fill(probe, None, None, episodes, None, tiny_training.shape())
  with pytest.raises(ValueError, match='without teacher_logprobs'):
    batching.stack(episodes, tiny_training.shape(), ('teacher_logprobs',))


def test_teacher_logprobs_reach_the_rows():
  episodes = with_answers(tiny_training.episodes())
  made = hindsight.recipe(group_size=2)
  program = lambda params, rows: np.full(rows.tokens.shape, -0.5, np.float32)
  filled, _ = _fill(made.probe, episodes, program=program)
  silent = filled[0].turns[0]._replace(observation=types.Observation(''))
  stacked = batching.stack(filled, tiny_training.shape(), made.probe.fills)
  trajectory = stacked.trajectory
  mask = trajectory.action_mask
  assert np.all(trajectory.teacher_logprobs[mask] == -0.5)
  assert not np.any(trajectory.teacher_logprobs[~mask])
  # Without a hint, what the sampler said.
  mute = episodes[0]._replace(turns=(silent, *episodes[0].turns[1:]))
  (found,), _ = _fill(made.probe, [mute], program=program)
  for segment in found.segments:
    own = segment.turn == 0
    assert np.array_equal(
      segment.teacher_logprobs[own], segment.sampler_logprobs[own]
    )
    assert np.all(segment.teacher_logprobs[segment.turn == 1] == -0.5)


# Episodes played once more.


class _Slipping:
  """A corridor that slips half of the time, so that seeds matter."""

  def __new__(cls):
    return environments.load('corridor', slip=0.5)


def _walk(world, member=1):
  builder = episodes_lib.Builder(
    world, rollout.Request(3, types.Task(0, '2>7', '7'), member)
  )
  seed = rollout.derive_seed(world.seed, 3)
  builder.reset(world.environment.reset(builder.request.task, seed))
  visited = []
  while not builder.ended and builder.turn < 4:
    visited.append(builder.state)
    ids = world.tokenizer.action('<tool>right</tool>')
    text = builder.act(np.array(ids), np.zeros(len(ids)), 0, 1.0)
    seed = rollout.derive_seed(world.seed, 3, member, builder.turn)
    builder.observe(world.environment.step(builder.state, text, seed))
  return builder.episode(), visited


def test_states_of_an_episode():
  world = small_world.world(_Slipping(), segment_tokens=200)
  for member in range(3):
    episode, visited = _walk(world, member)
    assert rollout.states(episode, world) == visited
  hints = hindsight.truth(episode, world)
  assert hints == [f'place {state.place}' for state in visited]


def test_states_that_cannot_be_had():
  world = small_world.world(_Slipping(), segment_tokens=200)
  episode, _ = _walk(world)

  class Live:
    forkable = False

  with pytest.raises(ValueError, match='Live declares forkable = False'):
    rollout.states(episode, world._replace(environment=Live()))

  class Broken:
    def reset(self, task, seed):
      return world.environment.reset(task, seed)

    def step(self, state, action, seed):
      raise KeyError('gone')

  with pytest.raises(RuntimeError, match="KeyError: 'gone' when turn 1"):
    rollout.states(episode, world._replace(environment=Broken()))
  with pytest.raises(ValueError, match='wants a world with `privileged`'):
    hindsight.truth(episode, world._replace(environment=Broken()))
