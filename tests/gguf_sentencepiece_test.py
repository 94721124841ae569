"""Tokenizers of the SentencePiece kind in GGUF files, against sentencepiece.

The fixture was made by sentencepiece 0.2.3: small vocabularies, in the settings
of Llama 2 and of Gemma and one without bytes, and the ids of difficult texts.
"""

import functools
import json
import pathlib

import gguf
import numpy as np
import pytest
import tokenizers

from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.models import pretrained
from agentic_jax.models.pretrained import gguf_files
from agentic_jax.models.pretrained.gguf_files import sentencepiece
from tests import tiny_published

NAMES = ('llama', 'gemma', 'no_bytes')
# Of Llama 2 and of Gemma, in short.
TEMPLATES = {
  'llama': (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    '{{ m.content + eos_token }}'
    "{% else %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endif %}"
    '{% endfor %}'
  ),
  'gemma': (
    "{{ bos_token }}{% for m in messages %}{{ '<table>' + m.role + '\\n' + "
    'm.content + eos_token }}{% endfor %}'
    "{% if add_generation_prompt %}{{ '<table>model\\n' }}{% endif %}"
  ),
}


@functools.cache
def _fixture():
  path = pathlib.Path(__file__).parent / 'fixtures' / 'sentencepiece.json'
  return json.loads(path.read_text())


def _write(path: pathlib.Path, name: str, more=lambda writer: None):
  """A file as a converter writes it: spaces in words that are matched whole."""
  model = _fixture()['models'][name]
  writer = gguf.GGUFWriter(path, 'llama')
  described = tiny_published.CONFIGS['llama']
  tiny_published.write_metadata(writer, 'llama', described)
  writer.add_tokenizer_model('llama')
  writer.add_tokenizer_pre('default')
  writer.add_token_list(
    [
      piece.replace('▁', ' ') if kind == 4 else piece
      for piece, kind in zip(model['pieces'], model['kinds'], strict=True)
    ]
  )
  writer.add_token_scores(model['scores'])
  writer.add_token_types(model['kinds'])
  if name == 'gemma':
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)
  if name in TEMPLATES:
    writer.add_chat_template(TEMPLATES[name])
  more(writer)
  writer.add_tensor('token_embd.weight', np.zeros((420, 32), np.float32))
  tiny_published.finish(writer)
  return pretrained.find(str(path))


@pytest.fixture(name='source', params=NAMES)
def _source(request, tmp_path):
  made = _write(tmp_path / f'{request.param}.gguf', request.param).tokenizer()
  return request.param, made


def _cases(name):
  found = _fixture()
  return zip(found['texts'], found['models'][name]['ids'], strict=True)


def test_ids_are_those_of_sentencepiece(source):
  name, made = source
  words = tokenizer_lib.TextTokenizer(made)
  raw = tokenizers.Tokenizer.from_str(json.dumps(made.data))
  assert len(list(_cases(name))) > 30
  for text, wanted in _cases(name):
    ids = raw.encode(text, add_special_tokens=False).ids
    assert ids == wanted, text
    assert words.encode(text) == wanted, text


def test_bytes_survive(source):
  name, made = source
  words = tokenizer_lib.TextTokenizer(made)
  if name == 'no_bytes':
    assert words.encode('🧮')[-1] == words.special('<unk>')
    return
  for text, _ in _cases(name):
    joined = b''.join(words.pieces(words.encode(text))).decode()
    # A literal of the sign for spaces reads as a space.
    prefix = ' ' if name == 'llama' and text else ''
    assert joined == prefix + text.replace('▁', ' ')
    # What the policy says is continued text: no space is put before it.
    said = words.action(text)
    assert words.decode(said) == text.replace('▁', ' ')


def test_special_names_stay_text(source):
  name, made = source
  words = tokenizer_lib.TextTokenizer(made)
  specials = {words.special(x) for x in ('<s>', '</s>', '<unk>')}
  ids = words.encode('a<s></s><unk>b')
  if name != 'no_bytes':
    assert specials.isdisjoint(ids)
    assert words.decode(ids).strip() == 'a<s></s><unk>b'
  assert words.eos_id == words.special('</s>')
  assert words.action('<s>')[0] == words.special('<s>')


def test_a_conversation_of_llama_2(tmp_path):
  """A space after each special token, and none where the policy goes on."""
  words = tokenizer_lib.TextTokenizer(
    _write(tmp_path / 'a.gguf', 'llama').tokenizer()
  )
  bos, eos = words.special('<s>'), words.special('</s>')
  encode = words.encode
  assert words.prompt('user') == [bos, *encode('[INST] user [/INST]')]
  wanted = [eos, bos, *encode('[INST] 12 [/INST]')]
  assert words.observation('12') == wanted
  assert words.observation('12', closed=True) == wanted[1:]
  assert words.decode(words.action('the user')) == 'the user'
  # As published: the first piece of a message begins with a space.
  assert words.decode(wanted[2:]) == ' [INST] 12 [/INST]'


def test_a_conversation_of_gemma(tmp_path):
  words = tokenizer_lib.TextTokenizer(
    _write(tmp_path / 'a.gguf', 'gemma').tokenizer()
  )
  text = words.decode(words.prompt('a  b'))
  assert text == '<s><table>user\na  b</s><table>model\n'
  assert words.pad_id == words.special('<pad>') == 0
  # A run of spaces is one token.
  assert len(words.encode('        ')) == 1


def test_merges_by_hand():
  """All pairs of a piece, by falling score; of what is matched whole none."""
  names = [
    '<unk>',
    '<s>',
    '<0x41>',
    'a',
    'b',
    'ab',
    'ba',
    'aba',
    's>',
    '<',
    '<s',
  ]
  kinds = [2, 3, 6, 1, 1, 1, 1, 1, 1, 1, 4]
  scores = [0, 0, 0, -9, -8, -2, -3, -1, -7, -6, 0]
  assert sentencepiece.merges(names, kinds, scores) == [
    ('ab', 'a'), ('a', 'ba'), ('a', 'b'), ('b', 'a'),
  ]  # fmt: skip


def test_what_is_missing_is_named(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / 'a.gguf', 'llama')
  described = tiny_published.CONFIGS['llama']
  tiny_published.write_metadata(writer, 'llama', described)
  writer.add_tokenizer_model('llama')
  writer.add_token_list(['<unk>', '<s>', '</s>'])
  writer.add_token_types([2, 3, 3])
  writer.add_tensor('token_embd.weight', np.zeros((8, 32), np.float32))
  tiny_published.finish(writer)
  with pytest.raises(
    ValueError, match="no 'tokenizer.ggml.scores'.*--tokenizer"
  ):
    pretrained.find(str(tmp_path / 'a.gguf')).tokenizer()
  header = gguf_files.read(tmp_path / 'a.gguf')
  other = header._replace(
    fields={**header.fields, 'tokenizer.ggml.model': 't5'}
  )
  with pytest.raises(ValueError, match="kind 't5'.*'llama', which is Sent"):
    gguf_files.source(other)
