"""The conformance suite of every environment, and what is special to each."""

import math
import pickle
import subprocess
import sys
import time

import pytest

from agentic_jax import environments
from agentic_jax import protocol
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import base
from tests import scripted_play
from tests import world_cases

every = pytest.mark.parametrize('name, settings', world_cases.params())


def random_policy(environment):
  """Bytes, tags in any order, and sensible actions."""
  tags = getattr(environment, 'grammar', protocol.Grammar()).tags

  def act(state, rng):
    kind = rng.randrange(3)
    if kind == 0:
      return rng.randbytes(rng.randrange(40)).decode('latin-1')
    if kind == 1:
      parts = [*tags, '1', 'pow(2,9', 'left', ' ']
      return ''.join(rng.choices(parts, k=rng.randrange(8)))
    return rng.choice(environment.admissible(state))

  return act


@every
def test_interface(name, settings):
  environment = environments.load(name, **settings)
  assert isinstance(environment, base.Scripted)
  assert environment.observability in ('full', 'partial')
  assert pickle.loads(pickle.dumps(environment)).max_turns > 0


@every
def test_same_seed_and_actions_same_transitions(name, settings):
  first = environments.load(name, **settings)
  second = environments.load(name, **settings)
  for seed, task in enumerate(scripted_play.some_tasks(name)):
    transitions, actions = scripted_play.play(
      first, task, random_policy(first), seed
    )
    again, _ = scripted_play.play(
      second, task, scripted_play.replay(actions), seed
    )
    plain = scripted_play.plain
    assert list(map(plain, transitions)) == list(map(plain, again))


@every
def test_states_are_values(name, settings):
  environment = environments.load(name, **settings)
  policy = random_policy(environment)
  for seed, task in enumerate(scripted_play.some_tasks(name)):
    transitions, actions = scripted_play.play(environment, task, policy, seed)
    before = dict(vars(environment))
    for place, (transition, action) in enumerate(zip(transitions, actions)):
      state = transition.state
      held, digest = pickle.dumps(state), hash(state)
      step_seed = 1000 * seed + place + 1
      environment.step(state, environment.admissible(state)[0], 77)
      later = environment.step(state, action, step_seed)
      plain = scripted_play.plain
      assert plain(later) == plain(transitions[place + 1])
      assert pickle.dumps(state) == held and hash(state) == digest
      with pytest.raises(AttributeError):
        state.turn = 5
    assert vars(environment) == before


@every
def test_a_random_agent_never_crashes_it(name, settings):
  environment = environments.load(name, **settings)
  policy = random_policy(environment)
  for seed, task in enumerate(scripted_play.some_tasks(name, 80)):
    for transition in scripted_play.play(environment, task, policy, seed)[0]:
      assert isinstance(transition, types.Transition)
      assert isinstance(transition.observation.text, str)
      assert set(transition.reward) <= set(types.REWARDS)
      assert all(math.isfinite(r) for r in transition.reward.values())
      assert isinstance(transition.state_key, str)
      assert not (transition.terminated and transition.truncated)


@every
def test_half_characters_are_said_by_whoever_likes(name, settings):
  # A tokenizer makes none of them, but an endpoint may answer with some.
  environment = environments.load(name, **settings)
  begin = environment.reset(scripted_play.some_tasks(name, 1)[0], 0).state
  for tag in ('tool', 'memory', 'answer'):
    for word in ('', 'add ', 'search ', 'find ', 'cat ', 'write a '):
      action = f'<{tag}>{word}\ud800 x</{tag}>'
      environment.step(begin, action, 0).observation.text.encode()


@every
@pytest.mark.parametrize('split', tasks_lib.SPLITS)
def test_the_oracle_solves_it(name, settings, split):
  environment = environments.load(name, **settings)
  for seed, task in enumerate(scripted_play.some_tasks(name, 100, split)):
    transitions, _ = scripted_play.play(
      environment, task, lambda state, rng: environment.oracle(state), seed
    )
    assert scripted_play.success(transitions), task


@every
def test_a_cheater_earns_less_than_an_honest_weak_policy(name, settings):
  environment = environments.load(name, **settings)

  def honest(state, rng):
    if rng.random() < 0.5:
      return environment.oracle(state)
    return environment.admissible(state)[0]

  def earned(policy):
    total = 0.0
    for seed, task in enumerate(scripted_play.some_tasks(name, 60)):
      for transition in scripted_play.play(
        environment, task, policy(task), seed
      )[0]:
        total += sum(transition.reward.values())
    return total

  def cheat(text):
    return lambda task: lambda s, r: text.replace('{prompt}', task.prompt)

  weak = earned(lambda task: honest)
  for text in world_cases.CHEATERS[name]:
    assert earned(cheat(text)) < 0.5 * weak, text


@every
def test_the_truth_never_reaches_an_observation(name, settings):
  # With another truth the same actions are answered by the same words.
  environment = environments.load(name, **settings)
  policy = random_policy(environment)
  said = lambda transition: scripted_play.plain(transition).observation
  for seed, task in enumerate(scripted_play.some_tasks(name, 40)):
    transitions, actions = scripted_play.play(environment, task, policy, seed)
    other = environment.reset(task._replace(answer='secret'), seed)
    for place, action in enumerate(actions):
      assert said(other) == said(transitions[place])
      assert 'secret' not in other.state_key
      other = environment.step(other.state, action, 1000 * seed + place + 1)
    assert said(other) == said(transitions[-1])


@pytest.mark.parametrize('name', environments.ENVIRONMENTS)
def test_train_and_held_out_tasks_are_disjoint(name):
  prompts = {
    split: {task.prompt for task in scripted_play.some_tasks(name, 200, split)}
    for split in tasks_lib.SPLITS
  }
  for split, own in prompts.items():
    others = set().union(*(p for s, p in prompts.items() if s != split))
    assert own and not own & others


@every
def test_throughput(name, settings):
  environment = environments.load(name, **settings)
  oracle = lambda state, rng: environment.oracle(state)
  played = [
    (task, scripted_play.play(environment, task, oracle, 0)[1])
    for task in scripted_play.some_tasks(name, 30)
  ]
  steps, start = 0, time.perf_counter()
  for _ in range(10):
    for task, actions in played:
      policy = scripted_play.replay(actions)
      steps += len(scripted_play.play(environment, task, policy, 0)[1])
  rate = steps / (time.perf_counter() - start)
  print(f'\n{name} {settings}: {rate:,.0f} steps a second')
  assert rate > 500


def test_worlds_start_without_jax_and_tensorflow():
  code = (
    'import sys; from agentic_jax import context, environments, tasks, tools;'
    'from agentic_jax.tasks import pool;'
    'print({"jax", "flax", "tensorflow", "tensorflow_datasets", "gymnasium",'
    '"minigrid", "reasoning_gym", "textarena", "textworld"}'
    ' & set(sys.modules))'
  )
  said = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert said.stdout.strip() == 'set()'


def test_places_of_the_corridor_recur():
  environment = environments.load('corridor')
  begin = environment.reset(types.Task(0, '2>5'), 0)
  right = environment.step(begin.state, '<tool>right</tool>', 0)
  back = environment.step(right.state, '<tool>left</tool>', 0)
  assert right.observation.text == '3' and back.state_key == begin.state_key
  assert back.state != begin.state
  odd = environment.step(begin.state, '<tool>up</tool>', 0)
  assert odd.observation.text == 'error: left or right'


def test_another_seed_is_another_draw():
  environment = environments.load('corridor', slip=0.5)
  state = environment.reset(types.Task(0, '3>7'), 0).state
  places = [
    environment.step(state, '<tool>right</tool>', seed).observation.text
    for seed in range(200)
  ]
  assert 60 < places.count('4') < 140 and set(places) == {'2', '4'}


def test_partial_observability_hides_the_place():
  environment = environments.load('corridor', observability='partial')
  state = environment.reset(types.Task(0, '0>3'), 0).state
  said = [
    environment.step(state, f'<tool>{way}</tool>', 0).observation.text
    for way in ('left', 'right')
  ]
  assert said == ['wall', 'moved']


def _walk(environment, prompt, actions):
  """The transitions of turns: `5r` plans, and `r` keeps the plan."""
  transitions = [environment.reset(types.Task(0, prompt), 0)]
  for text in actions:
    plan, way = text[:-1], text[-1]
    lead = '<switch>n</switch>'
    if plan:
      lead = f'<switch>y</switch><plan>{plan}</plan>'
    action = f'{lead}<tool>{way}</tool>'
    transitions.append(environment.step(transitions[-1].state, action, 0))
  return transitions


def test_errands_are_run_in_their_order():
  environment = environments.load('errands', goal_reward=0.5)
  walk = _walk(environment, '2>4>3', ['4r', 'r', '3l'])
  assert [x.observation.text for x in walk] == ['2>4>3', '3', '4', '3']
  # The second goal, on the way to the first, does not count.
  assert [dict(x.reward) for x in walk] == [
    {},
    {},
    {'process': 0.5},
    {'process': 0.5, 'final': 1.0},
  ]
  assert [x.terminated for x in walk] == [False, False, False, True]
  keys = ['2>4>3 plan ', '3>4>3 plan 4', '4>3 plan 4', '3 plan 3']
  assert [x.state_key for x in walk] == keys
  with pytest.raises(ValueError, match='has ended'):
    environment.step(walk[-1].state, '', 0)


def test_a_limit_of_turns_cuts_errands_off():
  walk = _walk(environments.load('errands', max_turns=2), '0>3', ['3r', 'r'])
  assert walk[-1].truncated and not walk[-1].reward


@pytest.mark.parametrize(
  'action, says',
  [
    ('<tool>r</tool>', 'switch y or n'),
    ('<switch>yes</switch><plan>4</plan><tool>r</tool>', 'switch y or n'),
    ('<switch>y</switch><tool>r</tool>', 'plan if y'),
    ('<switch>n</switch><plan>4</plan><tool>r</tool>', 'plan if y'),
    ('<switch>n</switch><tool>r</tool>', 'no plan'),
    ('<switch>y</switch><plan>4</plan><tool>up</tool>', 'l or r'),
    ('<switch>y</switch><plan>4</plan><answer>r</answer>', 'l or r'),
    ('<plan>4</plan><switch>y</switch><tool>r</tool>', 'the order is'),
  ],
)
def test_what_is_no_turn_of_errands_costs_and_moves_nothing(action, says):
  environment = environments.load('errands')
  begin = environment.reset(types.Task(0, '2>4>3'), 0)
  after = environment.step(begin.state, action, 0)
  assert after.observation.text.startswith('error: ')
  assert says in after.observation.text
  assert dict(after.reward) == {'auxiliary': -0.1}
  assert after.state == begin.state._replace(turn=1)


def test_errands_show_what_their_settings_say():
  environment = environments.load('errands', observability='full')
  said = [x.observation.text for x in _walk(environment, '2>3>5', ['3r', '5r'])]
  assert said == ['2>3>5', '3>5', '4>5']
  plain = environments.load('errands', plans=False)
  begin = plain.reset(types.Task(0, '0>1'), 0)
  assert plain.step(begin.state, '<tool>r</tool>', 0).terminated
  assert plain.oracle(begin.state) == '<tool>r</tool>'


def test_the_oracle_of_errands_plans_and_keeps_its_plan():
  environment = environments.load('errands')
  state = environment.reset(types.Task(0, '2>4>3'), 0).state
  said = []
  while not state.ended:
    said.append(environment.oracle(state))
    state = environment.step(state, said[-1], 0).state
  assert said == [
    '<switch>y</switch><plan>4</plan><tool>r</tool>',
    '<switch>n</switch><tool>r</tool>',
    '<switch>y</switch><plan>3</plan><tool>l</tool>',
  ]
  # What another has planned amiss is planned anew.
  amiss = environment.reset(types.Task(0, '2>4>3'), 0).state._replace(plan='3')
  assert environment.oracle(amiss) == said[0]


def test_an_oracle_of_errands_with_little_skill_plans_the_goal_after():
  environment = environments.load('errands', skill=0.25)
  state = environment.reset(types.Task(0, '4>2>7'), 0).state
  said = [environment.oracle(state._replace(seed=x)) for x in range(400)]
  first = [x for x in said if '<plan>2<' in x]
  assert 70 < len(first) < 130  # A quarter.
  assert len(first) + sum('<plan>7<' in x for x in said) == 400
  # A step goes where the plan says.
  assert all(('<tool>l<' in x) == ('<plan>2<' in x) for x in said)
  # It walks to what it has planned, though another goal is due.
  said = environment.oracle(state._replace(plan='7'))
  assert said.startswith('<switch>n</switch>')
  # Where it stands is no plan.
  there = state._replace(place=7, plan='7')
  for seed in range(20):
    assert '<plan>2<' in environment.oracle(there._replace(seed=seed))


OWN = """
from agentic_jax import types

class Mine:
  def __init__(self, *, size: int, colour='red'):
    self.size = size
  def reset(self, task, seed):
    return types.Transition((), types.Observation(task.prompt))
  def step(self, state, action, seed):
    return types.Transition(state, types.Observation(''), terminated=True)

class NoStep:
  def reset(self, task, seed): ...
"""


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'tool': 'no'}, "tool='no' is not of the kind .* wanted true or false"),
    ({'tool': 1}, 'wanted true or false'),
    ({'call_price': 'abc'}, "call_price='abc' .* wanted a number"),
    ({'call_price': True}, 'wanted a number'),
  ],
)
def test_settings_of_another_kind_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    environments.load('tool_math', **settings)


def test_an_environment_of_ones_own(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(OWN)
  environment = environments.load(f'{file}:Mine', size=3)
  assert environment.size == 3
  assert pickle.loads(pickle.dumps(environment)).size == 3
  with pytest.raises(ValueError, match=r"no 'Min'. Did you mean 'Mine'"):
    environments.load(f'{file}:Min')
  with pytest.raises(ValueError, match="'color'. Did you mean 'colour'"):
    environments.load(f'{file}:Mine', size=1, color='blue')
  with pytest.raises(ValueError, match="needs a value for its setting 'size'"):
    environments.load(f'{file}:Mine')
  with pytest.raises(ValueError, match='lacks the method step'):
    environments.load(f'{file}:NoStep')
  with pytest.raises(ValueError, match='There is no file .*absent.py'):
    environments.load(f'{tmp_path}/absent.py:Mine')


def test_errors_of_names_and_settings():
  with pytest.raises(ValueError, match="Did you mean 'tool_math'.*corridor"):
    environments.load('toolmath')
  with pytest.raises(
    ValueError, match="'call_prize'. Did you mean 'call_price'"
  ):
    environments.load('tool_math', call_prize=1)
  with pytest.raises(ValueError, match='Prices'):
    environments.load('tool_math', call_price=-1)
  with pytest.raises(ValueError, match='At least one turn'):
    environments.load('tool_math', max_turns=0)
  with pytest.raises(ValueError, match='observability is'):
    environments.load('corridor', observability='none')
  with pytest.raises(ValueError, match='slips with a probability'):
    environments.load('corridor', slip=2)
  with pytest.raises(ValueError, match='a skill that is a probability'):
    environments.load('errands', skill=1.5)
  with pytest.raises(ValueError, match='not negative'):
    environments.load('errands', error_price=-0.1)
  with pytest.raises(ValueError, match='observability is'):
    environments.load('errands', observability='none')
  for prompt in ('1', '1>9', '2>2', 'x'):
    with pytest.raises(ValueError, match='such as "0>1>0"'):
      environments.load('errands').reset(types.Task(0, prompt), 0)
  with pytest.raises(ValueError, match='such as "0>7"'):
    environments.load('corridor').reset(types.Task(0, '0>9'), 0)
