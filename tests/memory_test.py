"""The store: against plain Python, over a kill, as a value."""

import math
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from agentic_jax import memory


def _texts(found):
  return [entry.text for entry in found]


def test_random_operations_agree_with_a_dictionary(tmp_path):
  rng = random.Random(0)
  store, plain, last = memory.Store(str(tmp_path / 'a')), {}, 0
  for at in range(150):
    number, text = rng.randint(1, last + 1), f'{rng.choice("abcd")} {at}'
    name = rng.choice(memory.OPERATIONS)
    said = f'{name} {number} {text}' if name == 'update' else f'{name} {text}'
    said = {'delete': f'delete {number}', 'noop': 'noop'}.get(name, said)
    try:
      told = memory.apply(store, memory.read(said), at=at, most=1000)
    except memory.WrongOperation as error:
      assert str(error) == f'no entry {number}' and number not in plain
      continue
    if name == 'add':
      last += 1
      plain[last] = text
      assert told == f'added {last}'
    elif name == 'update':
      plain[number] = text
    elif name == 'delete':
      del plain[number]
    elif name == 'search':
      word = text.partition(' ')[0]
      wanted = {f'{k} {v}' for k, v in plain.items() if v[0] == word}
      assert set(told.split('; ')) == (wanted or {'nothing'})
  assert {e.id: e.text for e in store.entries()} == plain and len(plain) > 5
  store.close()
  again = memory.Store(str(tmp_path / 'a'))
  assert {e.id: e.text for e in again.entries()} == plain
  copy = memory.Store.of(again.snapshot())
  assert copy.entries() == again.entries()
  copy.delete(copy.entries()[0].id)
  assert len(copy) == len(again) - 1 == len(plain) - 1


def test_words_are_scored_by_bm25():
  texts = ['cat', 'cat dog', 'dog dog owl', 'cat cat dog owl fox', 'fox']
  store = memory.Store()
  for text in texts:
    store.add(text)
  words = [text.split() for text in texts]
  mean = sum(map(len, words)) / len(words)

  def score(own, query):
    total = 0.0
    for word in query:
      inside = sum(word in w for w in words)
      rare = math.log((len(words) - inside + 0.5) / (inside + 0.5))
      rare = max(rare, 1e-6)  # SQLite keeps it positive.
      count = own.count(word)
      length = 1 - 0.75 + 0.75 * len(own) / mean
      total += rare * count * 2.2 / (count + 1.2 * length)
    return total

  for query in (['owl'], ['fox', 'owl'], ['cat']):
    wanted = {
      t: score(w, query) for t, w in zip(texts, words) if set(w) & set(query)
    }
    found = store.search(' '.join(query), most=9)
    assert {e.text for e in found} == set(wanted)
    for entry in found:
      assert entry.score == pytest.approx(wanted[entry.text], rel=1e-6)
    best = [wanted[e.text] for e in found]
    np.testing.assert_allclose(best, sorted(best, reverse=True))
  # What SQLite would read as a query of its own is words too.
  assert _texts(store.search('"owl" NOT (fox*')) == _texts(
    store.search('owl not fox')
  )
  assert store.search('?!') == []


def test_vectors_are_scored_by_cosine():
  embed = lambda text: [text.count('a'), text.count('b'), 1e-9]
  store = memory.Store(embed=embed)
  for text in ('aaa', 'ab', 'bb'):
    store.add(text)
  found = store.search('aab', index='vectors', most=2)
  assert _texts(found) == ['ab', 'aaa']
  np.testing.assert_allclose(
    [e.score for e in found], [3 / math.sqrt(10), 2 / math.sqrt(5)], rtol=1e-6
  )
  store.update(3, 'aab')
  assert _texts(store.search('aab', index='vectors'))[0] == 'aab'


def test_scopes_kinds_and_keys():
  store = memory.Store()
  store.add('tea', key='ann', scope='home/ann')
  store.add('tea too', scope='/home/')
  store.add('tea three', key='ann', scope='homes')
  store.add('def f(tea): pass', kind='executable')
  store.add('tea is hot', kind='principle')
  assert set(_texts(store.search('tea', scope='home'))) == {'tea', 'tea too'}
  assert _texts(store.search('tea', scope='home/ann')) == ['tea']
  assert _texts(store.search('tea', kind='principle')) == ['tea is hot']
  assert _texts(store.entries(kind='executable')) == ['def f(tea): pass']
  # Of equals the newest first.
  assert _texts(store.search('ann', index='exact')) == ['tea three', 'tea']
  told = memory.apply(store, memory.read('search @home/ann tea'), at=0)
  assert told == '1 tea'
  memory.apply(store, memory.read('add @home/bob milk'), at=0)
  assert store.entries(scope='home/bob')[0].text == 'milk'
  for wrong in (
    lambda: store.add('def f(', kind='executable'),
    lambda: store.update(4, 'def f('),
  ):
    with pytest.raises(ValueError, match='An executable entry is Python'):
      wrong()
  with pytest.raises(ValueError, match='none of fact, principle, exec'):
    store.add('a', kind='rule')


def test_what_is_recalled_is_kept_and_what_is_not_fades():
  assert memory.retention(2.0, 4.0) == pytest.approx(math.exp(-0.5))
  store = memory.Store(capacity=3, full='weakest')
  for at, text in enumerate('abc'):
    store.add(text, at=at)
  store.search('a', recall_at=3.0)
  first = store.entries()[0]
  assert (first.strength, first.touched) == (2.0, 3.0)
  store.search('a')  # Leaves no trace.
  assert store.entries()[0] == first
  # At 5: a has e^-1, b e^-4, c e^-3.
  store.add('d', at=5.0)
  assert _texts(store.entries()) == ['a', 'c', 'd']
  assert store.forget(6.0, below=math.exp(-1.6)) == [3]
  assert _texts(store.entries()) == ['a', 'd']
  oldest = memory.Store(capacity=1, full='oldest')
  oldest.add('a')
  oldest.add('b')
  assert [(e.id, e.text) for e in oldest.entries()] == [(2, 'b')]
  full = memory.Store(capacity=1)
  full.add('a')
  with pytest.raises(memory.WrongOperation, match='full, 1 entries'):
    full.add('b')
  assert _texts(full.search('a b')) == ['a']


def test_relations_hold_for_a_time():
  store = memory.Store()
  store.relate('ann', 'lives', 'oslo', 1.0)
  store.relate('ann', 'lives', 'rome', 4.0)
  store.relate('ann', 'works', 'bank', 2.0)
  at = lambda time, name='lives': [
    r.object for r in store.related('ann', name, at=time)
  ]
  assert [at(t) for t in (0.9, 1.0, 3.9, 4.0, 9.0)] == [
    [],
    ['oslo'],
    ['oslo'],
    ['rome'],
    ['rome'],
  ]
  assert at(5.0, '') == ['rome', 'bank']
  # Told late what held between.
  store.relate('ann', 'lives', 'lima', 3.0)
  assert [at(t) for t in (2.9, 3.5, 4.0)] == [['oslo'], ['lima'], ['rome']]
  store.end('ann', 'lives', 6.0)
  assert at(5.9) == ['rome'] and at(6.0) == []
  held = store.related('ann', 'works', at=7.0)
  assert held == [memory.Relation('ann', 'works', 'bank', 2.0, math.inf)]


KILLED = """
import sys
from agentic_jax import memory
store = memory.Store(sys.argv[1])
for i in range(10**6):
  number = store.add(f'entry {i}')
  store.relate('a', 'is', str(i), float(i))
  print(number, flush=True)
"""


def test_a_store_survives_a_kill(tmp_path):
  path = str(tmp_path / 'store')
  process = subprocess.Popen(
    [sys.executable, '-c', KILLED, path],
    stdout=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).parents[1],
  )
  assert process.stdout is not None
  said = [int(process.stdout.readline()) for _ in range(40)]
  process.send_signal(signal.SIGKILL)
  said += [int(x) for x in process.stdout.read().split('\n')[:-1]]
  process.wait()
  store = memory.Store(path)
  found = [entry.id for entry in store.entries()]
  # All that was done, and perhaps what was about to be said.
  assert found[: len(said)] == said and len(found) <= len(said) + 1
  assert len(store.search('entry', most=10**6)) == len(found)
  assert len(store.related('a', at=1e9)) == 1
  assert store.add('more') == len(found) + 1


@pytest.mark.parametrize(
  'text, wanted',
  [
    ('add ann tea', memory.Operation('add', 0, 'ann tea')),
    (' add  @a/b  ann\ntea ', memory.Operation('add', 0, 'ann\ntea', 'a/b')),
    ('update 12 x', memory.Operation('update', 12, 'x')),
    ('delete 1', memory.Operation('delete', 1)),
    ('noop', memory.Operation('noop')),
    ('search @a x', memory.Operation('search', 0, 'x', 'a')),
  ],
)
def test_operations_as_text(text, wanted):
  assert memory.read(text) == wanted


@pytest.mark.parametrize(
  'text, says',
  [
    ('', 'one of add update delete noop search'),
    ('drop 1', 'one of add'),
    ('noop now', 'one of add'),
    ('add', 'add wants a text'),
    ('add @a', 'add wants a text'),
    ('search ', 'search wants a text'),
    ('update x', 'update wants a number'),
    ('update 1', 'update wants a text'),
    ('update 0 x', 'update wants a number'),
    ('delete', 'delete wants a number'),
    ('delete 1 x', 'delete wants a number alone'),
  ],
)
def test_what_is_no_operation(text, says):
  with pytest.raises(memory.WrongOperation, match=says):
    memory.read(text)


def test_errors_of_a_store(tmp_path):
  (tmp_path / 'text').write_text('nothing of the kind' * 100)
  with pytest.raises(ValueError, match='is no store'):
    memory.Store(str(tmp_path / 'text'))
  with pytest.raises(ValueError, match="full is .*got capacity=0, full='lru'"):
    memory.Store(full='lru')
  import sqlite3

  other = sqlite3.connect(tmp_path / 'other')
  other.execute('create table cats (name)')
  other.close()
  with pytest.raises(ValueError, match='something else: .* tables cats'):
    memory.Store(str(tmp_path / 'other'))
  plain = memory.Store(words=False)
  with pytest.raises(ValueError, match='none of exact, words, vectors'):
    plain.search('a', index='soup')
  with pytest.raises(ValueError, match='made with words=False'):
    plain.search('a')
  with pytest.raises(ValueError, match='embed=FUNCTION'):
    plain.search('a', index='vectors')
