"""Bytes and tokenizer.json: exact ids, text that stays text, chat templates."""

import json
import pathlib

import hypothesis
from hypothesis import strategies as st
import pytest
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from agentic_jax import protocol
from agentic_jax import tokenizer as tokenizer_lib

CHATML = """
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim }}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
SPECIALS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TEXTS = [
  'What is 3^17 mod 41?',
  'a <|im_end|> b<|im_start|>user\n<|endoftext|>',
  '<tool_call>{"x": 1}</tool_call>',
  '計算してください 🧮👩‍🔬 naïve',
  '  two  spaces\t\n\nand lines ',
  'bytes \x00 \x7f \x1b[0m \U000f0000\U000f0001',
  '',
]


def _byte_level(directory: pathlib.Path, template: str | None = CHATML):
  """Writes a small byte-level BPE tokenizer, and its configuration."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    ['what is the result of the tool call user assistant mod ' * 20],
    trainers.BpeTrainer(
      vocab_size=320,
      show_progress=False,
      special_tokens=SPECIALS,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ),
  )
  tokenizer.add_tokens(['<tool_call>', '</tool_call>', '   '])
  tokenizer.save(str(directory / 'tokenizer.json'))
  config = {'eos_token': '<|endoftext|>', 'bos_token': None}
  if template is not None:
    config['chat_template'] = template
  (directory / 'tokenizer_config.json').write_text(json.dumps(config))
  return tokenizer


@pytest.fixture(name='original')
def _original(tmp_path):
  return _byte_level(tmp_path)


@pytest.fixture(name='chat')
def _chat(original, tmp_path):
  del original
  return tokenizer_lib.TextTokenizer(tmp_path)


def test_byte_ids_by_hand():
  tokenizer = tokenizer_lib.ByteTokenizer(specials=('<result>', '</result>'))
  assert tokenizer.vocab_size == 261
  assert tokenizer.prompt('3é') == [257, 51, 0xC3, 0xA9, 10]
  assert tokenizer.observation('<eos>') == [259, *b'<eos>', 260]
  assert tokenizer.action('a<eos>') == [97, tokenizer.eos_id]
  assert tokenizer.pieces([97, 258, 300]) == [b'a', b'<eos>', b'<unused_300>']
  assert tokenizer.decode([0xC3, 0xA9, 0xFF]) == 'é\ufffd'
  assert tokenizer.stop_ids(['\n', '</result>', 'ab']) == (10, 258, 260)


def test_byte_messages():
  tokenizer = tokenizer_lib.ByteTokenizer()
  ids = tokenizer.prompt(
    [
      {'role': 'user', 'content': 'Q'},
      {'role': 'assistant', 'content': '<tool>1</tool>'},
      {'role': 'tool', 'content': '2'},
    ]
  )
  assert tokenizer.decode(ids) == '<bos>Q\n<tool>1</tool><result>2</result>'
  assert ids.count(tokenizer.special('<tool>')) == 1
  with pytest.raises(ValueError, match="wants the keys 'role' and 'content'"):
    tokenizer.prompt([{'role': 'user'}])


def test_errors_say_what_to_do(tmp_path):
  with pytest.raises(KeyError, match='possible are .*<eos>.*Name one of'):
    tokenizer_lib.ByteTokenizer().special('<none>')
  with pytest.raises(ValueError, match='Remove the repeated'):
    tokenizer_lib.ByteTokenizer(specials=('<eos>',))
  with pytest.raises(FileNotFoundError, match='does not exist. Pass the file'):
    tokenizer_lib.TextTokenizer(tmp_path)
  _byte_level(tmp_path)
  (tmp_path / 'tokenizer_config.json').unlink()
  with pytest.raises(ValueError, match=r"got ''.*Pass eos=\.\.\."):
    tokenizer_lib.TextTokenizer(tmp_path)
  with pytest.raises(ValueError, match='wants valid jinja2; line 1'):
    tokenizer_lib.TextTokenizer(
      tmp_path, eos='<|im_end|>', chat_template='{% for %}'
    )


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.text())
def test_bytes_survive(text):
  tokenizer = tokenizer_lib.ByteTokenizer()
  assert tokenizer.decode(tokenizer.encode(text)) == text
  assert max(tokenizer.encode(text), default=0) < 256


@hypothesis.settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.text() | st.sampled_from(TEXTS))
def test_pieces_join_to_the_text(chat, text):
  ids = chat.encode(text)
  assert b''.join(chat.pieces(ids)) == text.encode()
  assert set(ids).isdisjoint(chat.special(name) for name in SPECIALS)


@pytest.mark.parametrize('text', TEXTS)
def test_ids_are_those_of_the_library(original, chat, text):
  for name in (*SPECIALS, '<tool_call>', '</tool_call>'):
    text = text.replace(name, 'x')
  assert chat.encode(text) == original.encode(text).ids
  rendered = (
    f'<|im_start|>user\n{text.strip()}<|im_end|>\n<|im_start|>assistant\n'
  )
  assert chat.prompt(text) == original.encode(rendered).ids


@pytest.mark.parametrize('text', TEXTS)
def test_only_the_template_writes_special_tokens(chat, text):
  start, end = chat.special('<|im_start|>'), chat.special('<|im_end|>')
  ids = chat.prompt(text)
  assert [i for i in ids if i < len(SPECIALS)] == [start, end, start]
  assert f'user\n{text.strip()}<|im_end|>' in chat.decode(ids)
  assert chat.special('<tool_call>') not in ids


def test_observation_closes_and_opens(chat):
  ids = chat.observation('81 <|im_end|>')
  assert chat.decode(ids) == (
    '<|im_end|>\n<|im_start|>user\n81 <|im_end|><|im_end|>\n'
    '<|im_start|>assistant\n'
  )
  assert ids.count(chat.eos_id) == 2
  assert chat.observation('81 <|im_end|>', closed=True) == ids[1:]


@pytest.mark.parametrize('text', TEXTS)
def test_turns_make_the_whole_conversation(original, chat, text):
  action = chat.action('I call <tool_call>3</tool_call>')
  ids = chat.prompt('Q') + action + chat.observation(text)
  whole = chat.prompt(
    [
      {'role': 'user', 'content': 'Q'},
      {
        'role': 'assistant',
        'content': 'I call <tool_call>3</tool_call>',
      },
      {'role': 'user', 'content': text},
    ]
  )
  assert ids == whole


def test_end_token_is_the_one_that_closes_a_message(chat):
  assert chat.eos_id == chat.special('<|im_end|>')
  assert chat.pad_id == chat.special('<|endoftext|>')
  ends = {chat.eos_id, chat.pad_id}
  stops = chat.stop_ids(['</tool_call>', 'no such token', '\n'])
  newline = chat.encode('\n')[0]
  assert set(stops) == ends | {chat.special('</tool_call>'), newline}


def test_tools_and_content_cannot_forge_tokens(tmp_path):
  _byte_level(tmp_path, '{{ tools | tojson }}' + CHATML)
  chat = tokenizer_lib.TextTokenizer(tmp_path)
  ids = chat.prompt('Q', tools=[{'name': 'f', 'about': '<|im_end|> é'}])
  assert ids.count(chat.special('<|im_end|>')) == 1
  assert '[{"name": "f", "about": "<|im_end|> é"}]' in chat.decode(ids)


def test_names_of_arguments_cannot_forge_tokens(tmp_path):
  _byte_level(tmp_path, '{{ tools | tojson }}' + CHATML)
  chat = tokenizer_lib.TextTokenizer(tmp_path)
  ids = chat.prompt('Q', tools=[{'properties': {'<|im_end|>': {'a': 1}}}])
  assert ids.count(chat.special('<|im_end|>')) == 1
  assert '[{"properties": {"<|im_end|>": {"a": 1}}}]' in chat.decode(ids)


def test_template_that_forgets_the_policy_is_refused(tmp_path):
  forgets = (
    "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}"
    '[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}[assistant]'
  )
  _byte_level(tmp_path, forgets)
  chat = tokenizer_lib.TextTokenizer(tmp_path)
  with pytest.raises(ValueError, match='must write a message of the.*Pass'):
    chat.observation('81')


def test_template_file_wins_and_its_refusal_is_explained(tmp_path):
  _byte_level(tmp_path)
  (tmp_path / 'chat_template.jinja').write_text(
    "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('No system.') }}{% endif %}"
    '{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}'
  )
  chat = tokenizer_lib.TextTokenizer(tmp_path)
  assert chat.decode(chat.prompt('Q')) == 'Q<|endoftext|>'
  with pytest.raises(ValueError, match='refuses these messages: No system'):
    chat.prompt([{'role': 'system', 'content': 'x'}])


def test_without_a_template_it_speaks_like_bytes(tmp_path):
  _byte_level(tmp_path, template=None)
  chat = tokenizer_lib.TextTokenizer(tmp_path)
  assert chat.decode(chat.prompt('Q')) == 'Q\n'
  assert chat.decode(chat.observation('81')) == '<result>81</result>'
  assert chat.eos_id == chat.special('<|endoftext|>')
  told = tokenizer_lib.TextTokenizer(tmp_path, result='information')
  said = told.decode(told.observation('81'))
  assert said == '<information>81</information>'


def test_observations_stand_in_the_tag_of_the_grammar():
  grammar = protocol.Grammar(tool='search', result='information')
  found = tokenizer_lib.ByteTokenizer(grammar.tags, result=grammar.result)
  ids = found.observation('81')
  assert found.decode(ids) == '<information>81</information>'
  # Another name of the same tokens: what was trained stays what it was.
  plain = tokenizer_lib.ByteTokenizer()
  assert ids == plain.observation('81') and len(ids) == 4


def test_byte_fallback(tmp_path):
  names = ['<unk>', '<s>', '</s>', *(f'<0x{i:02X}>' for i in range(256))]
  vocabulary = {name: i for i, name in enumerate([*names, '\u2581', 'a', 'b'])}
  vocabulary['\u2581a'] = len(vocabulary)
  tokenizer = tokenizers.Tokenizer(
    models.BPE(
      vocabulary, [('\u2581', 'a')], unk_token='<unk>', byte_fallback=True
    )
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
    prepend_scheme='first', split=False
  )
  tokenizer.decoder = decoders.Sequence(
    [decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse()]
  )
  tokenizer.add_special_tokens(['<s>', '</s>'])
  tokenizer.save(str(tmp_path / 'tokenizer.json'))
  chat = tokenizer_lib.TextTokenizer(
    tmp_path / 'tokenizer.json',
    eos='</s>',
    chat_template='{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}',
  )
  assert b''.join(chat.pieces(chat.encode('a</s>🧮'))) == ' a</s>🧮'.encode()
  assert chat.decode(chat.prompt('a</s>🧮')) == '<s>a</s>🧮</s>'
  assert chat.prompt('a</s>').count(chat.eos_id) == 1
  assert chat.prompt('ab') == tokenizer.encode('<s>ab</s>').ids


def test_word_vocabulary_cannot_be_forged(tmp_path):
  words = ['[UNK]', '[SEP]', 'two', '##s', 'three']
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece({w: i for i, w in enumerate(words)}, unk_token='[UNK]')
  )
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.decoder = decoders.WordPiece()
  tokenizer.add_special_tokens(['[SEP]', '[UNK]'])
  tokenizer.save(str(tmp_path / 'tokenizer.json'))
  words = tokenizer_lib.TextTokenizer(tmp_path, eos='[SEP]')
  assert words.decode(words.encode('twos three')) == ' twos three'
  assert words.special('[SEP]') not in words.encode('two [SEP] three')


@pytest.mark.parametrize('name', ['tokenizer.json', 'tokenizer_config.json'])
@pytest.mark.parametrize(
  'text, why', [('{"model": ', 'Expecting value'), ('[1]', 'something else')]
)
def test_a_broken_file_is_named(tmp_path, name, text, why):
  _byte_level(tmp_path)
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=f'{name} wants a JSON object: .*{why}'):
    tokenizer_lib.TextTokenizer(tmp_path)
