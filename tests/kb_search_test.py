"""KBSearch: what is found, what is asked, what a search too many costs."""

import collections

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import kb_search as world
from agentic_jax.rewards import answers
from agentic_jax.tasks import kb_search
from agentic_jax.tasks import splits
from tests import scripted_play

PASSAGES = (
  'lomu boss tani',
  'kibo boss deza',
  'east tani heir vuvu',
  'kibo pal lomu',
  'west tani heir vuvu',
  'deza pal kibo',
  'north tani heir zozo',
  'tani pal deza',
)
SKIPPED = (*kb_search.RELATIONS, *kb_search.CHRONICLERS)


def _task(prompt, answer='tani'):
  return types.Task(0, prompt, answer, data={'passages': list(PASSAGES)})


def _play(actions, prompt="kibo's pal's boss?", **settings):
  environment = environments.load('kb_search', **settings)
  transitions = [environment.reset(_task(prompt), 0)]
  for action in actions:
    if '<' not in action:
      action = f'<search>{action}</search>'
    transitions.append(environment.step(transitions[-1].state, action, 3))
  return transitions


def _passages(task):
  return [passage.split() for passage in task.data['passages']]


@pytest.mark.parametrize(
  'query, k, found',
  [
    # What a passage is about counts twice, what it ends in once.
    ('kibo pal', 1, [3]),
    ('kibo pal', 9, [3, 5, 1, 7]),
    ('PAL, Kibo!', 2, [3, 5]),
    ('lomu', 2, [0, 3]),
    ('north tani heir', 9, [6, 2, 4, 7, 0]),
    ('what', 2, []),
    ('', 2, []),
  ],
)
def test_what_is_found(query, k, found):
  assert list(kb_search.search(PASSAGES, query, k)) == [
    PASSAGES[i] for i in found
  ]


def test_questions_are_read():
  read = kb_search.read_question
  assert read("kibo's pal?") == kb_search.Question(('kibo',), ('pal',))
  assert read("kibo's pal's boss by most of east north west?") == (
    ('kibo',),
    ('pal', 'boss'),
    '',
    True,
  )
  asked = 'how many of kibo lomu have pal tani?'
  assert read(asked) == (('kibo', 'lomu'), ('pal',), 'tani', False)
  for prompt in ('kibo?', "kibo's pal", 'how many of kibo?', ''):
    with pytest.raises(ValueError, match='A question is such as'):
      read(prompt)
  for data in ({}, {'passages': []}, {'passages': [3]}):
    with pytest.raises(ValueError, match="passages in the task's data"):
      kb_search.read_passages(data)


def _follow(task):
  """The answer from all passages, by plain loops."""
  question = kb_search.read_question(task.prompt)
  facts = _passages(task)
  if question.counted:
    wanted = [*question.relations, question.counted]
    return str(sum([e, *wanted] in facts for e in question.entities))
  here = question.entities[0]
  for relation in question.relations:
    ends = collections.Counter(
      end for *about, end in facts if about[-2:] == [here, relation]
    )
    # A fact is said once; a disputed one by three, of which two agree.
    assert sorted(ends.values()) in ([1], [1, 2])
    here = ends.most_common(1)[0][0]
  return here


@pytest.mark.parametrize('name', ['kb_search', 'kb_search_long'])
def test_answers_follow_from_the_passages(name):
  for task in scripted_play.some_tasks(name, 260, 'train'):
    assert task.answer == _follow(task)
    assert len(set(task.data['passages'])) == len(task.data['passages'])


def test_no_entity_is_in_two_splits():
  for name in ('kb_search', 'kb_search_short', 'kb_search_long'):
    for split in tasks_lib.SPLITS:
      for task in scripted_play.some_tasks(name, 130, split):
        words = {word for passage in _passages(task) for word in passage}
        entities = words.difference(SKIPPED)
        assert {splits.split_of(word) for word in entities} == {split}


def test_kinds_and_lengths():
  tasks = scripted_play.some_tasks('kb_search', 130)
  counts = collections.Counter((task.kind, task.difficulty) for task in tasks)
  assert len(counts) == 13 and set(counts.values()) == {10}
  assert max(d for kind, d in counts if kind == 'hops') == 12
  for task in tasks:
    question = kb_search.read_question(task.prompt)
    asked = question.entities if task.kind == 'count' else question.relations
    assert len(asked) == task.difficulty
  short = scripted_play.some_tasks('kb_search_short', 100)
  assert {task.difficulty for task in short} == {1, 2}
  long = scripted_play.some_tasks('kb_search_long', 100)
  assert {task.difficulty for task in long} == {6, 8, 10, 12}


def test_who_answers_what_is_named_most_is_wrong():
  for task in scripted_play.some_tasks('kb_search', 260):
    words = [word for passage in _passages(task) for word in passage]
    named = collections.Counter(w for w in words if w not in SKIPPED)
    if task.kind != 'count':
      assert named[task.answer] <= 4 < max(named.values())


def test_a_tiny_policy_has_room():
  environment = environments.load('kb_search')
  for task in scripted_play.some_tasks('kb_search_short', 200):
    transitions, actions = scripted_play.play(
      environment, task, lambda state, rng: environment.oracle(state)
    )
    said = [t.observation.text for t in transitions]
    # Tags are single tokens: at most four of a turn.
    assert sum(map(len, said + actions)) < 200
    # Where a relation comes twice, one search may find both facts.
    assert 2 <= len(actions) <= task.difficulty + 1


def test_two_hops():
  steps = _play(['kibo pal', 'lomu boss', '<answer>The Tani.</answer>'])
  assert [step.observation.text for step in steps] == [
    "kibo's pal's boss?",
    'kibo pal lomu; deza pal kibo',
    'lomu boss tani; kibo boss deza',
    '',
  ]
  assert dict(steps[-1].reward) == {'final': 1.0} and steps[-1].terminated
  assert steps[-1].state.idle == 0
  with pytest.raises(ValueError, match='has ended'):
    environments.load('kb_search').step(steps[-1].state, '', 0)


def test_what_is_no_turn_is_answered_and_costs_nothing():
  steps = _play(['<search>kibo', 'pal < kibo', '<answer>lomu</answer>'])
  assert steps[1].observation.text == 'error: search not closed'
  assert not steps[1].reward and not steps[1].truncated
  assert steps[1].state == steps[0].state._replace(turn=1)
  assert dict(steps[-1].reward) == {'final': 0.0}


def test_the_last_turn_has_no_search():
  steps = _play(['kibo pal', 'lomu boss'], max_turns=2)
  assert steps[-1].truncated and steps[-1].observation.text == ''
  assert steps[-1].state.known == steps[1].state.known
  steps = _play(['kibo pal', '<answer>tani</answer>'], max_turns=2)
  assert steps[-1].terminated and dict(steps[-1].reward) == {'final': 1.0}


def test_searches_too_many_are_counted_and_priced():
  asked = ['kibo pal', 'kibo pal', 'nobody', 'lomu boss', 'tani pal']
  steps = _play(asked, search_price=0.125, idle_price=0.5)
  assert [step.state.idle for step in steps] == [0, 0, 1, 2, 2, 3]
  paid = [-step.reward['auxiliary'] for step in steps[1:]]
  assert paid == [0.125, 0.625, 0.625, 0.125, 0.625]
  assert all(not step.reward for step in _play(asked))


def test_most_of_three_is_asked_for_until_two_agree():
  environment = environments.load('kb_search', top=1)
  task = _task("tani's heir by most of east north west?", 'vuvu')
  transitions, actions = scripted_play.play(
    environment, task, lambda state, rng: environment.oracle(state)
  )
  asked = [f'<search>{c} tani heir</search>' for c in kb_search.CHRONICLERS]
  assert actions == [*asked, '<answer>vuvu</answer>']
  assert scripted_play.success(transitions)
  # Two at once agree at the second search of one alone.
  agreed = kb_search.consider(
    kb_search.read_question(task.prompt), (PASSAGES[2], PASSAGES[4])
  )
  assert agreed == kb_search.Next(answer='vuvu')


def test_without_a_search_nothing_is_found():
  steps = _play(['kibo pal', '<answer>tani</answer>'], search=False)
  assert steps[1].observation.text == 'nothing found'
  assert dict(steps[-1].reward) == {'final': 1.0}


def test_noise_is_of_the_seed_and_known_to_nobody():
  (_, first) = _play(['kibo pal'], noise=24)
  environment = environments.load('kb_search', noise=24)
  begin = environment.reset(_task("kibo's pal?"), 0)
  again, other = (
    environment.step(begin.state, '<search>kibo pal</search>', seed)
    for seed in (3, 4)
  )
  assert again.observation == first.observation != other.observation
  for part, passage in zip(other.observation.text.split('; '), PASSAGES[3::2]):
    assert part[:-24] == f'{passage} '
  assert again.state == other.state


def test_all_passages_are_shown_where_the_settings_say_so():
  environment = environments.load('kb_search', observability='full')
  said = environment.reset(_task("kibo's pal?"), 0).observation.text
  assert said == "kibo's pal?\n" + '; '.join(PASSAGES)


def test_settings_are_checked():
  for settings in (
    {'top': 0},
    {'max_turns': 0},
    {'noise': -1},
    {'idle_price': -0.1},
  ):
    with pytest.raises(ValueError, match='A search shows at least 1 passage'):
      environments.load('kb_search', **settings)


def test_demonstrations_have_the_form_and_no_plan():
  environment = environments.load('kb_search', max_turns=5)
  tasks = scripted_play.some_tasks('kb_search_short', 600)
  searches, solved = [], {1: [], 2: []}
  for seed, task in enumerate(tasks):
    actions = world.wander(environment, task, seed)
    assert actions == world.wander(environment, task, seed)
    assert all(environment.grammar.parse(action).valid for action in actions)
    transitions, _ = scripted_play.play(
      environment, task, scripted_play.replay(actions)
    )
    assert transitions[-1].terminated
    searches.append(len(actions) - 1)
    solved[task.difficulty].append(scripted_play.success(transitions))
  assert set(searches) == {0, 1, 2, 3} and 1.3 < np.mean(searches) < 1.7
  assert 0.05 < np.mean(solved[1]) < 0.3 and 0 < np.mean(solved[2]) < 0.15
  actions = world.wander(environment, tasks[1], 0, skill=1.0)
  assert (
    len(actions) == 3 and actions[-1] == f'<answer>{tasks[1].answer}</answer>'
  )
  with pytest.raises(ValueError, match='skill is a probability'):
    world.wander(environment, tasks[0], 0, skill=2.0)


@pytest.mark.parametrize(
  'answer, truth, score',
  [
    ('The Owl!', 'owl', 1.0),
    ('an  OWL', 'the owl.', 1.0),
    ("owl's", 'owls', 1.0),
    ('a', 'a', 0.0),
    ('', '', 0.0),
    ('owl fox', 'owl', 0.0),
    ('theowl', 'owl', 0.0),
  ],
)
def test_exact_match_after_normalisation(answer, truth, score):
  assert answers.normalised(answer, truth) == score


def test_a_state_is_what_is_known():
  one = _play(['kibo pal', 'lomu boss'])[-1]
  other = _play(['lomu boss', 'nobody', 'kibo pal'])[-1]
  assert one.state_key == other.state_key
  assert one.state_key != _play(['kibo pal'])[-1].state_key
