"""Adapters: Gymnasium both ways, and worlds of packages that may be missing."""

import importlib
import pickle
import random
import warnings

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import adapters
from agentic_jax.environments.adapters import gymnasium as adapter
from agentic_jax.environments.adapters import playing
from agentic_jax.environments.adapters import puzzles
from agentic_jax.rollout import replay
from agentic_jax.tasks import seeds
from agentic_jax.tasks import splits
from experiments import worlds
from tests import scripted_play

LAKE = 'FrozenLake-v1'


def _task(number):
  return types.Task(0, f'seed {number}')


def _oracle(environment):
  return lambda state, rng: environment.oracle(state)


def _random(environment):
  def act(state, rng):
    if rng.random() < 0.2:
      return rng.choice(['', '<tool>up up</tool>', '<answer>1</answer>', 'é<'])
    return rng.choice(environment.admissible(state))

  return act


def _seen(transitions):
  """All of transitions that does not hold a live game."""
  return [
    (t.observation.text, dict(t.reward), t.terminated, t.truncated, t.agent)
    for t in transitions
  ]


def _holds_its_contract(environment, numbers=range(3)):
  """Random episodes end within bounds, twice the same."""
  policy = _random(environment)
  for number in numbers:
    found, actions = scripted_play.play(
      environment, _task(number), policy, number
    )
    again, _ = scripted_play.play(
      environment, _task(number), scripted_play.replay(actions), number
    )
    assert _seen(found) == _seen(again)
    for transition in found:
      assert set(transition.reward) <= set(types.REWARDS)
      assert np.all(np.isfinite(list(transition.reward.values())))
      assert not (transition.terminated and transition.truncated)
    with pytest.raises(ValueError, match='has ended'):
      environment.step(found[-1].state, '', 0)


# Seeds.


def test_seeds_are_in_one_split_and_their_draws_their_own():
  found = {split: list(seeds.tasks(split)) for split in tasks_lib.SPLITS}
  prompts = [task.prompt for own in found.values() for task in own]
  assert len(set(prompts)) == len(prompts) == sum(seeds.SIZES.values())
  for split, own in found.items():
    assert {splits.split_of(task.prompt) for task in own} == {split}
  assert seeds.draws('seed 1')[0] == seeds.draws('seed 0')[-1] + 1
  for prompt in ('17', 'seed', 'seed -1', 'seed x', 'seed 999999999'):
    with pytest.raises(ValueError, match='such as "seed 17"'):
      seeds.read(prompt)


def test_tasks_of_an_adapter_are_seeds(monkeypatch):
  asked = []
  monkeypatch.setattr(worlds.tasks, 'load', lambda *spec: asked.append(spec))
  worlds.tasks_of('', f'gymnasium?id={LAKE}', 'runs', 'test')
  worlds.tasks_of('', 'browser_forms?view=both', 'runs', 'test')
  assert asked == [
    ('seeds', 'test', 'runs/data'),
    ('forms', 'test', 'runs/data'),
  ]


# Packages that are missing.


@pytest.mark.parametrize('name', adapters.ADAPTERS)
def test_a_missing_package_is_told_with_its_extra(name, monkeypatch):
  def missing(module, package=None):
    raise ModuleNotFoundError(f'No module named {module!r}')

  monkeypatch.setattr(importlib, 'import_module', missing)
  settings = {
    'gymnasium': {'id': LAKE},
    'openenv': {'url': 'http://127.0.0.1:9'},
    'reasoning_gym': {'name': 'chain_sum'},
  }.get(name, {})
  extra = {'babyai': 'minigrid', 'browser_forms': 'browser'}.get(name, name)
  with pytest.raises(ValueError, match=rf'agentic_jax\[{extra}\]'):
    environments.load(name, **settings)


def test_names_of_adapters_are_told():
  with pytest.raises(ValueError, match="Did you mean 'gymnasium'.*textworld"):
    environments.load('gymnasim')


# From Gymnasium.


@pytest.fixture(scope='module')
def gym():
  return pytest.importorskip('gymnasium')


def _counter(gym, limit=3):
  """Counts by dice; ended, and cut off as well, at the limit."""

  class Counter(gym.Env):
    action_space = gym.spaces.Discrete(2, start=5)
    observation_space = gym.spaces.Dict(
      {'sum': gym.spaces.Discrete(99), 'x': gym.spaces.Box(0, 1, (2,))}
    )

    def reset(self, *, seed=None, options=None):
      super().reset(seed=seed)
      self.sum, self.step_number = int(self.np_random.integers(50)), 0
      return self._observation(), {}

    def _observation(self):
      return {'sum': self.sum, 'x': np.float32([0.123456, 1])}

    def step(self, action):
      assert action in (5, 6)
      self.step_number += 1
      if action == 6:
        self.sum += int(self.np_random.integers(1, 7))
      over = self.step_number >= limit
      return self._observation(), 0.5, over, over, {'action_mask': [0, 1]}

  return Counter


def test_a_walk_over_the_ice_by_hand(gym):
  world = environments.load('gymnasium', id=LAKE, is_slippery=False)
  walk = ['down', '1', 'right', 'right', 'down', 'right']
  actions = [f'<tool>{way}</tool>' for way in walk]
  policy = scripted_play.replay(actions)
  found, _ = scripted_play.play(world, _task(0), policy)
  said = [t.observation.text for t in found]
  assert said == ['0', '4', '8', '9', '10', '14', '15']
  assert [dict(t.reward) for t in found[1:]] == [{'process': 0.0}] * 5 + [
    {'final': 1.0}
  ]
  assert found[-1].terminated and not found[-1].truncated
  assert world.admissible(found[0].state)[0] == '<tool>left</tool>'
  assert world.max_turns == 100 and not world.forkable


def test_the_games_own_drawing(gym):
  world = environments.load('gymnasium', id=LAKE, view='text')
  first = world.reset(_task(0), 0)
  assert first.observation.text == '[S]FFF\nFHFH\nFFFH\nHFFG'


def test_chance_is_that_of_the_step(gym):
  world = environments.load('gymnasium', id=LAKE, observability='full')
  ends = []
  for seed in range(60):
    state = world.reset(_task(0), 1).state
    ends.append(world.step(state, '<tool>right</tool>', seed))
  keys = [t.state_key for t in ends]
  # Right, or down or up, each a third.
  assert set(keys) == {'0', '1', '4'} and 8 < keys.count('1') < 32
  state = world.reset(_task(0), 2).state
  assert world.step(state, '<tool>2</tool>', 7).state_key == keys[7]


def test_ends_masks_names_and_numbers(gym):
  world = adapter.from_gymnasium(_counter(gym))
  first = world.reset(_task(7), 0)
  expected = int(np.random.Generator(np.random.PCG64(7)).integers(50))
  assert first.observation.text == f'sum {expected}; x 0.123 1'
  assert first.state_key == ''
  assert world.admissible(first.state) == ('<tool>5</tool>', '<tool>6</tool>')
  bad = world.step(first.state, '<tool>7</tool>', 0)
  assert bad.observation.text == 'error: one of 5 6' and not bad.reward
  state = bad.state
  for seed in range(2):
    state = world.step(state, '<tool>6</tool>', seed).state
  assert world.admissible(state) == ('<tool>6</tool>',)
  last = world.step(state, '<tool>5</tool>', 0)
  # Both of Gymnasium's ends: what the world ended is not cut off.
  assert last.terminated and not last.truncated
  assert last.reward == {'final': 0.5}
  named = adapter.from_gymnasium(
    _counter(gym), actions=('stay', 'throw'), max_turns=1
  )
  state = named.reset(_task(1), 0).state
  cut = named.step(state, '<tool>throw</tool>', 0)
  assert cut.truncated and not cut.terminated and cut.reward == {'final': 0.5}
  state = named.reset(_task(1), 0).state
  assert named.step(state, 'nonsense', 0).truncated


def test_a_state_is_stepped_once(gym):
  world = environments.load('gymnasium', id=LAKE)
  state = world.reset(_task(0), 0).state
  world.step(state, '<tool>up</tool>', 0)
  with pytest.raises(ValueError, match='cannot be taken back'):
    world.step(state, '<tool>up</tool>', 0)
  with pytest.raises(ValueError, match='forkable = False'):
    replay.states(None, type('W', (), {'environment': world}))


@pytest.mark.parametrize('id', [LAKE, 'Blackjack-v1', 'CartPole-v1'])
def test_episodes_of_gymnasium(gym, id):
  world = environments.load('gymnasium', id=id, max_turns=12)
  _holds_its_contract(world)
  assert pickle.loads(pickle.dumps(world)).max_turns == 12


def test_an_environment_that_was_made_makes_others(gym):
  made = gym.make(LAKE, is_slippery=False)
  world = adapter.from_gymnasium(made)
  states = [world.reset(_task(0), 0).state for _ in range(2)]
  down = [world.step(s, '<tool>down</tool>', 0) for s in states]
  assert [t.observation.text for t in down] == ['4', '4']


def test_what_gymnasium_cannot_be_is_told(gym):
  for settings, message in [
    ({}, 'wants an id'),
    ({'id': LAKE, 'view': 'smell'}, 'view of values, text, pixels'),
    ({'id': 'FrozenLak-v1'}, 'cannot make'),
    ({'id': LAKE, 'slippery': True}, 'cannot make'),
    ({'id': 'Pendulum-v1'}, 'wanted Discrete'),
    ({'id': LAKE, 'actions': 'a,b'}, '4 actions, so as many'),
    ({'id': LAKE, 'max_turns': -1}, 'at least 1'),
    ({'id': LAKE, 'observability': 'none'}, 'observability is'),
    (
      {'id': 'CartPole-v1', 'view': 'text'},
      'draws no characters|pygame is not',
    ),
  ]:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Gymnasium's, of the render mode.
      with pytest.raises(ValueError, match=message):
        environments.load('gymnasium', **settings)
  with pytest.raises(ValueError, match='no second one can be made'):
    adapter.from_gymnasium(_counter(gym)())
  with pytest.raises(ValueError, match='65 numbers is no text'):
    adapter.values(None, np.zeros(65))


# To Gymnasium.


@pytest.mark.parametrize('name', ['mazes', 'corridor', 'tool_math'])
def test_gymnasiums_own_checker_passes(gym, name):
  checker = importlib.import_module('gymnasium.utils.env_checker')
  settings = {'slip': 0.5} if name == 'corridor' else {}
  tasks = scripted_play.some_tasks(name, 5)
  env = playing.to_gymnasium(environments.load(name, **settings), tasks)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    checker.check_env(env, skip_render_check=True)


def test_what_others_earn_is_in_the_info(gym):
  task = types.Task(0, '2 1 1 | 1 2 6 | 4 1 1')
  env = playing.to_gymnasium(environments.load('negotiate'), [task])
  env.reset(seed=0)
  *_, facts = env.step('<tool>offer 2 1 0</tool>')
  assert facts == {'reward': {}, 'agent': 1}
  _, reward, *_, facts = env.step('<tool>accept</tool>')
  assert (reward, facts['others']) == (0.9, {0: {'final': 0.6}})


def test_an_episode_played_by_gymnasiums_rules(gym):
  mazes = environments.load('mazes', step_price=0.125)
  tasks = scripted_play.some_tasks('mazes', 4)
  env = playing.to_gymnasium(mazes, tasks)
  text, facts = env.reset(seed=0, options={'task': 2})
  assert text == tasks[2].prompt and facts['task'] == 2
  total, over, cut, turns = 0.0, False, False, 0
  state = mazes.reset(tasks[2], 0).state
  while not (over or cut):
    action = mazes.oracle(state)
    state = mazes.step(state, action, 0).state
    text, reward, over, cut, facts = env.step(action)
    total, turns = total + reward, turns + 1
  assert over and not cut and turns == int(tasks[2].answer)
  assert total == 1 - 0.125 * turns
  assert facts['reward'] == {'auxiliary': -0.125, 'final': 1.0}
  with pytest.raises(ValueError, match='reset first'):
    env.step('')
  drawn = {env.reset(seed=seed)[1]['task'] for seed in range(30)}
  assert drawn == {0, 1, 2, 3}


def test_texts_fit_the_space(gym):
  class Said:
    def reset(self, task, seed):
      return types.Transition((), types.Observation('añb' + 'x' * 9))

    def step(self, state, action, seed):
      raise AssertionError

  env = playing.to_gymnasium(Said(), [_task(0)], length=5, characters='abx?')
  text, _ = env.reset(seed=0)
  assert text == 'a?bxx' and env.observation_space.contains(text)
  for settings in ({'tasks': []}, {'length': 0}, {'characters': 'abc'}):
    arguments = {'tasks': [_task(0)]} | settings
    with pytest.raises(ValueError, match='at least one task'):
      playing.to_gymnasium(Said(), **arguments)


def test_there_and_back_again(gym):
  blocks = environments.load('blocks')
  tasks = scripted_play.some_tasks('blocks', 3)
  env = playing.to_gymnasium(blocks, tasks)
  with pytest.raises(ValueError, match='wanted Discrete'):
    adapter.from_gymnasium(lambda: env)


# reasoning-gym, with a verifier of our own that stands in for the package.


class _Sums:
  def __init__(self, seed, size, most=50):
    assert size == 1
    if most < 1:
      raise ValueError('most')
    number = random.Random(seed).randrange(most)
    self.entry = {'question': f'{number}+1?', 'answer': str(number + 1)}

  def __getitem__(self, index):
    return self.entry

  def score_answer(self, answer, entry):
    wrong = abs(int(answer) - int(entry['answer']))  # Raises at words.
    return {0: 1.0, 1: 0.5, 7: float('nan')}.get(wrong, 0.0)


@pytest.fixture
def sums(monkeypatch):
  class Factory:
    DATASETS = {'sums': None, 'game_of_life_halting': None}

    @staticmethod
    def create_dataset(name, **settings):
      return _Sums(**settings)

  monkeypatch.setattr(puzzles.live, 'package', lambda *_: Factory)


def test_scores_of_puzzles(sums):
  world = environments.load('reasoning_gym', name='sums')
  soft = environments.load('reasoning_gym', name='sums', partial=True)
  first = world.reset(_task(3), 0)
  answer = int(first.observation.text.partition('+')[0]) + 1
  assert world.oracle(first.state) == f'<answer>{answer}</answer>'
  for said, hard_score, soft_score in [
    (answer, 1.0, 1.0),
    (answer + 1, 0.0, 0.5),
    (answer + 2, 0.0, 0.0),
    (answer + 7, 0.0, 0.0),
    ('banana', 0.0, 0.0),
  ]:
    action = f'<answer> {said} </answer>'
    assert world.step(first.state, action, 0).reward == {'final': hard_score}
    last = soft.step(first.state, action, 0)
    assert last.reward == {'final': soft_score} and last.terminated
  assert world.step(first.state, '<tool>1</tool>', 0).reward == {'final': 0.0}
  with pytest.raises(ValueError, match='has ended'):
    world.step(last.state, '', 0)


def test_questions_are_in_the_split_of_their_seed(sums):
  world = environments.load('reasoning_gym', name='sums')
  found = {
    split: {
      world.reset(task, 0).observation.text
      for task in list(seeds.tasks(split))[:60]
    }
    for split in tasks_lib.SPLITS
  }
  # Of fifty questions, each is in the split of its hash.
  assert sum(map(len, found.values())) == len(set().union(*found.values()))
  assert all(
    splits.split_of(question) == split
    for split, own in found.items()
    for question in own
  )
  few = environments.load('reasoning_gym', name='sums', most=1)
  (absent, *_) = [s for s in tasks_lib.SPLITS if s != splits.split_of('0+1?')]
  with pytest.raises(ValueError, match='too few different ones'):
    few.reset(next(iter(seeds.tasks(absent))), 0)


def test_puzzles_that_cannot_be_trusted_are_refused(sums):
  for settings, message in [
    ({'name': 'game_of_life_halting'}, 'scores any text as true'),
    ({'name': 'coin_flip'}, 'scores 0 as right'),
    ({'name': 'sum'}, 'reasoning_gym.name=chain_sum. It has sums'),
    ({'name': 'sums', 'most': 0}, "cannot make sums with {'most': 0}"),
    ({'name': 'sums', 'least': 0}, 'least'),
  ]:
    with pytest.raises(ValueError, match=message):
      environments.load('reasoning_gym', **settings)


@pytest.mark.parametrize('name', ['chain_sum', 'prime_factorization', 'boxnet'])
def test_puzzles_of_reasoning_gym(name):
  pytest.importorskip('reasoning_gym')
  world = environments.load('reasoning_gym', name=name)
  sent = pickle.loads(pickle.dumps(world))
  for task in list(seeds.tasks('test'))[:3]:
    first = world.reset(task, 0)
    assert sent.reset(task, 0) == first
    if hasattr(world, 'oracle'):
      solved = world.step(first.state, world.oracle(first.state), 0)
      assert solved.reward == {'final': 1.0}
    for text in ('banana', '0', ''):
      last = world.step(first.state, f'<answer>{text}</answer>', 0)
      assert last.reward == {'final': 0.0}
  assert hasattr(world, 'oracle') == (name != 'boxnet')


# MiniGrid and BabyAI.


def test_minigrid_in_words_and_pixels():
  pytest.importorskip('minigrid')
  world = environments.load('minigrid', id='MiniGrid-Empty-5x5-v0')
  # The agent is in a corner and looks along a wall, at three cells.
  first = world.reset(_task(0), 0)
  assert first.observation.text == (
    'get to the green goal square; wall 1 left; goal 2 ahead 2 right; '
    'wall 3 ahead'
  )
  walk = ['forward', 'forward', 'right', 'forward', 'forward']
  actions = [f'<tool>{way}</tool>' for way in walk]
  policy = scripted_play.replay(actions)
  found, _ = scripted_play.play(world, _task(0), policy)
  # One less nine tenths of the share of turns that were used.
  assert found[-1].reward == {'final': pytest.approx(1 - 0.9 * 5 / 100)}
  shown = environments.load('minigrid', view='pixels', tile_size=4)
  (image,) = shown.reset(_task(0), 0).observation.images
  assert image.shape == (28, 28, 3) and image.dtype == np.uint8
  whole = environments.load('minigrid', view='pixels', observability='full')
  assert whole.reset(_task(0), 0).observation.images[0].shape == (40, 40, 3)
  full = environments.load('minigrid', observability='full')
  text = full.reset(_task(0), 0).observation.text
  assert text.splitlines()[2] == 'WG>>    WG'
  _holds_its_contract(
    environments.load('minigrid', id='MiniGrid-DoorKey-5x5-v0', max_turns=30)
  )
  with pytest.raises(ValueError, match='A view of MiniGrid'):
    environments.load('minigrid', view='values')
  with pytest.raises(ValueError, match='cannot make'):
    environments.load('minigrid', id='MiniGrid-Nowhere-v0')


@pytest.mark.parametrize('level', ['GoToRedBall', 'UnlockPickup', 'BossLevel'])
def test_the_bot_solves_babyai(level):
  pytest.importorskip('minigrid')
  world = environments.load('babyai', id=f'BabyAI-{level}-v0')
  for number in range(4):
    transitions, _ = scripted_play.play(
      world, _task(number), _oracle(world), number
    )
    assert transitions[-1].terminated and transitions[-1].reward['final'] > 0
  # It takes over where others have played, and says the same twice.
  first = world.reset(_task(9), 0).state
  state = world.step(first, '<tool>left</tool>', 0).state
  assert world.oracle(state) == world.oracle(state)
  state = world.step(state, '<tool>right</tool>', 0).state
  while not state.ended:
    last = world.step(state, world.oracle(state), 0)
    state = last.state
  assert last.terminated
  with pytest.raises(ValueError, match='environment=minigrid.id=MiniGrid-X'):
    environments.load('babyai', id='MiniGrid-X-v0')


# TextWorld.


def test_an_adventure_is_generated_and_won(tmp_path):
  pytest.importorskip('textworld')
  world = environments.load(
    'textworld', rooms=2, quest=2, games=str(tmp_path), max_turns=8
  )
  transitions, actions = scripted_play.play(world, _task(0), _oracle(world))
  assert transitions[-1].reward == {'final': 1.0} and len(actions) == 2
  assert [p.name for p in tmp_path.iterdir()] == ['2_4_2_0']
  first = transitions[0]
  assert '\n' not in first.observation.text
  begin = world.reset(_task(0), 0).state
  assert world.oracle(begin) == actions[0]
  odd = world.step(begin, '<tool>eat the sky</tool>', 0)
  assert not odd.reward and not odd.terminated and odd.observation.text
  with pytest.raises(ValueError, match='cannot be taken back'):
    world.step(begin, actions[0], 0)
  _holds_its_contract(world, [0])
  with pytest.raises(ValueError, match='at least 1 room'):
    environments.load('textworld', rooms=0)


# TextArena.


def test_noughts_and_crosses_by_hand():
  pytest.importorskip('textarena')
  world = environments.load('textarena')
  before = random.getstate()
  actions = [f'<tool>[{cell}]</tool>' for cell in (0, 1, 4, 2, 8)]
  policy = scripted_play.replay(actions)
  found, _ = scripted_play.play(world, _task(0), policy)
  assert [t.agent for t in found] == [0, 1, 0, 1, 0, 0]
  assert found[-1].terminated and found[-1].reward == {'final': 1.0}
  assert found[-1].state.rewards == (1.0, -1.0)
  said = [t.observation.text for t in found]
  assert 'You are Player 0' in said[0] and 'You are Player 1' in said[1]
  assert 'Player 1 placed their symbol (X) in cell 1.' in said[2]
  assert world.admissible(found[1].state)[0] == '<tool>[1]</tool>'
  assert random.getstate() == before
  _holds_its_contract(world)
  # Cards come from the seed of the task.
  poker = environments.load('textarena', id='KuhnPoker-v0')
  hands = {poker.reset(_task(n), 0).observation.text for n in range(12)}
  again = {poker.reset(_task(n), 5).observation.text for n in range(12)}
  assert len(hands) > 1 and hands == again
  with pytest.raises(ValueError, match='cannot play'):
    environments.load('textarena', id='Nowhere-v0')
  with pytest.raises(ValueError, match='at least 1 player'):
    environments.load('textarena', players=0)
