"""The tag grammar: parse, render, stop strings and roles."""

import json

import hypothesis
from hypothesis import strategies
import pytest

from agentic_jax import protocol
from agentic_jax import types

GRAMMAR = protocol.Grammar()
PLANNING = protocol.Grammar(switch='switch', plan='plan')
REMEMBERING = protocol.Grammar(memory='memory', omit='omit')
NAMED = protocol.Grammar(tool='tool_call', named=True)
TEXT, THINK, TOOL, PLAN, SWITCH, MEMORY = (
  types.ROLES.index(r)
  for r in ('text', 'think', 'tool', 'plan', 'switch', 'memory')
)
TAGS = (*PLANNING.tags, *REMEMBERING.tags[8:], '<aim>', '</aim>')
TAGS += ('<tool_call>', '</tool_call>')

each_grammar = pytest.mark.parametrize(
  'grammar',
  [GRAMMAR, PLANNING, protocol.Grammar(plan='aim'), REMEMBERING, NAMED],
  ids=['plain', 'planning', 'plans only', 'remembering', 'named'],
)
# No tag of any of them.
contents = strategies.text().filter(
  lambda text: not any(tag in text for tag in TAGS)
)
objects = strategies.dictionaries(
  contents, strategies.one_of(contents, strategies.lists(strategies.integers()))
)
named = strategies.builds(
  protocol.Call, contents.filter(bool), objects.map(json.dumps)
)
# Texts in which tags are as likely as anything else.
soups = strategies.lists(
  strategies.one_of(
    strategies.sampled_from([*TAGS, '{"name": "f", "arguments": {}}']),
    strategies.text(),
  )
).map(''.join)


def actions(grammar):
  """Valid actions with all that a grammar has tags for."""
  leads = grammar.leads.values()
  names = strategies.sampled_from(sorted(grammar.callables.values()))
  plain = strategies.builds(protocol.Call, names, contents)
  calls = strategies.tuples(named if grammar.named else plain)
  return strategies.one_of(
    strategies.fixed_dictionaries({last: kind} | dict.fromkeys(leads, contents))
    for last, kind in {'calls': calls, 'answer': contents}.items()
  ).map(lambda fields: protocol.Action(**fields))


@each_grammar
@hypothesis.settings(deadline=None)
@hypothesis.given(strategies.data())
def test_parse_inverts_render(grammar, data):
  action = data.draw(actions(grammar))
  assert grammar.parse(grammar.render(action)) == action


@each_grammar
@hypothesis.settings(deadline=None)
@hypothesis.given(text=soups)
def test_what_parses_is_rendered_up_to_space_between_blocks(grammar, text):
  action = grammar.parse(text)
  assert action.valid == (not action.error)
  assert len(action.calls) + (action.answer is not None) == action.valid
  if action.valid:
    assert grammar.parse(grammar.render(action)) == action


@each_grammar
@hypothesis.settings(deadline=None)
@hypothesis.given(data=strategies.binary())
def test_arbitrary_bytes_never_raise(grammar, data):
  grammar.parse(data.decode('utf-8', errors='replace'))
  grammar.parse(data.decode('latin-1'))
  roles = grammar.roles([data[i : i + 1] for i in range(len(data))])
  assert roles.shape == (len(data),)


@each_grammar
@hypothesis.settings(deadline=None)
@hypothesis.given(data=strategies.data())
def test_every_byte_of_an_action_has_the_role_of_its_block(grammar, data):
  action = data.draw(actions(grammar))
  wanted = []
  for tag, role, said in [
    (grammar.omit, MEMORY, action.omit),
    (grammar.switch, SWITCH, action.switch),
    (grammar.plan, PLAN, action.plan),
    (grammar.think, THINK, action.think),
  ]:
    wanted += [role] * len(f'<{tag}>{said}</{tag}>'.encode()) if said else []
  text = grammar.render(action).encode()
  last = TEXT
  if action.calls:
    tool = grammar.named or not action.calls[0].name
    last = TOOL if tool else MEMORY
  wanted += [last] * (len(text) - len(wanted))
  found = grammar.roles([text[i : i + 1] for i in range(len(text))])
  assert found.tolist() == wanted


@each_grammar
@hypothesis.settings(deadline=None)
@hypothesis.given(text=soups, cuts=strategies.lists(strategies.integers(0, 60)))
def test_roles_do_not_depend_on_how_bytes_are_cut(grammar, text, cuts):
  data = text.encode()
  of_byte = grammar.roles([data[i : i + 1] for i in range(len(data))])
  edges = sorted({0, len(data), *(c for c in cuts if c < len(data))})
  pieces = [data[a:b] for a, b in zip(edges, edges[1:])]
  roles = grammar.roles(pieces)
  assert roles.dtype == 'int8'
  assert roles.tolist() == [int(of_byte[e]) for e in edges[:-1]][: len(pieces)]


@pytest.mark.parametrize(
  'text, seen',
  [
    ('<omit>1</omit><tool>a</tool>', '<tool>a</tool>'),
    (' <omit></omit> <answer>a</answer>', ' <answer>a</answer>'),
    ('<omit>1</omit><omit>2</omit>', '<omit>2</omit>'),
    ('<tool>a</tool>', '<tool>a</tool>'),
    ('<think>a</think><omit>1</omit>', '<think>a</think><omit>1</omit>'),
    ('a<omit>1</omit>', 'a<omit>1</omit>'),
    ('<omit>1<tool>a</tool>', '<omit>1<tool>a</tool>'),
  ],
)
def test_the_world_sees_no_commands_to_the_context(text, seen):
  assert REMEMBERING.for_world(text) == seen
  assert GRAMMAR.for_world(text) == text


def test_an_operation_on_the_memory_ends_a_turn():
  action = REMEMBERING.parse('<omit>1 2</omit><memory>add a</memory>')
  assert action.calls == (protocol.Call('memory', 'add a'),)
  assert action.omit == '1 2' and action.valid
  assert '</memory>' in REMEMBERING.stop_strings
  assert not GRAMMAR.parse('<memory>add a</memory>').valid


def test_a_call():
  action = GRAMMAR.parse('<think>pow</think>\n<tool>pow(3,17,41)</tool>')
  assert action == protocol.Action(
    'pow', (protocol.Call('', 'pow(3,17,41)'),), None, True, ''
  )


@pytest.mark.parametrize(
  'text, error',
  [
    ('', 'no tool or answer'),
    ('14', 'text outside tags'),
    ('<think>a</think>', 'no tool or answer'),
    ('<tool>1+1', 'tool not closed'),
    ('<tool>1+1</answer>', '/answer inside tool'),
    ('<think>a<think>b</think>', 'think inside think'),
    ('</tool>', 'tool not opened'),
    ('<result>14</result>', 'result is not an action'),
    ('<tool>1</tool><answer>1</answer>', 'text after tool'),
    ('<answer>1</answer><think>a</think>', 'text after answer'),
    ('<think>a</think><think>b</think>', 'think comes first'),
    ('<answer>1</answer> yes', 'text outside tags'),
    ('well <answer>1</answer>', 'text outside tags'),
  ],
)
def test_malformed_actions_say_what_is_wrong(text, error):
  action = GRAMMAR.parse(text)
  assert not action.valid and not action.calls and action.answer is None
  assert action.error == error


def test_roles_of_an_action():
  pieces = [
    b'<think>', b'p', b'</think>', b'<tool>', b'1', b'</answer>', b'</tool>',
    b'', b'x', b'<answer>', b'4', b'</answer>', b'<eos>', b'',
  ]  # fmt: skip
  assert GRAMMAR.roles(pieces).tolist() == [THINK] * 3 + [TOOL] * 4 + [TEXT] * 7


def test_an_unfinished_block_reaches_to_the_end():
  roles = GRAMMAR.roles([b'<th', b'ink>', b'a', b'b'])
  assert roles.tolist() == [THINK] * 4
  assert GRAMMAR.roles([]).shape == (0,)


def test_a_grammar_of_other_words():
  grammar = protocol.Grammar(tool='call', answer='final')
  assert grammar.stop_strings == ('</call>', '</final>')
  assert grammar.parse('<final>1</final>').answer == '1'
  assert not grammar.parse('<answer>1</answer>').valid


def test_a_plan_and_a_decision_to_plan():
  text = '<switch>yes</switch>\n<plan>go to 5</plan> <tool>right</tool>'
  call = (protocol.Call('', 'right'),)
  wanted = protocol.Action(calls=call, switch='yes', plan='go to 5')
  assert PLANNING.parse(text) == wanted
  keeps = '<switch>no</switch><think>on</think><answer>1</answer>'
  assert PLANNING.parse(keeps).switch == 'no' and not PLANNING.parse(keeps).plan
  pieces = [b'<switch>', b'y', b'</switch>', b'<plan>', b'5', b'</plan>', b'<']
  roles = [SWITCH] * 3 + [PLAN] * 3 + [TEXT]
  assert PLANNING.roles(pieces).tolist() == roles
  # Without these tags they are text like any other.
  assert GRAMMAR.parse(text).error == 'text outside tags'
  assert GRAMMAR.roles(pieces).tolist() == [TEXT] * 7
  assert GRAMMAR.parse('<tool><plan></tool>').calls[0].arguments == '<plan>'
  assert PLANNING.tags[:8] == GRAMMAR.tags
  assert PLANNING.stop_strings == GRAMMAR.stop_strings


@pytest.mark.parametrize(
  'text, error',
  [
    ('<plan>a</plan><switch>y</switch><tool>l</tool>', 'the order is'),
    ('<plan>a</plan><plan>b</plan><tool>l</tool>', 'each once'),
    ('<think>a</think><plan>b</plan><tool>l</tool>', 'switch, plan, think'),
    ('<tool>l</tool><plan>b</plan>', 'text after tool'),
    ('<switch>y</switch><plan>b</plan>', 'no tool or answer'),
    ('<plan>a<tool>l</tool>', 'tool inside plan'),
    ('<plan>a', 'plan not closed'),
  ],
)
def test_malformed_plans_say_what_is_wrong(text, error):
  action = PLANNING.parse(text)
  assert not action.valid and not action.calls
  assert error in action.error


def test_names_of_tags_are_checked():
  with pytest.raises(ValueError, match='names of their own'):
    protocol.Grammar(plan='think')
  with pytest.raises(ValueError, match='named by a word'):
    protocol.Grammar(switch='<plan>')
  with pytest.raises(ValueError, match='names of their own'):
    protocol.Grammar(tool='think')
  with pytest.raises(ValueError, match='named by a word'):
    protocol.Grammar(tool='<tool>')


@pytest.mark.parametrize(
  'action, fault',
  [
    (protocol.Action(valid=False), 'is invalid'),
    (protocol.Action('a'), 'not exactly one'),
    (protocol.Action(answer='</answer>'), 'a tag inside'),
    (protocol.Action(calls=(protocol.Call('sql', ''),)), 'names a tool'),
    (protocol.Action(answer='1', plan='a'), 'has a plan, for which'),
    (protocol.Action(answer='1', switch='a'), 'has a switch, for which'),
  ],
)
def test_what_has_no_text_is_not_rendered(action, fault):
  with pytest.raises(ValueError, match=fault):
    GRAMMAR.render(action)


def test_a_tag_inside_a_plan_is_not_rendered():
  with pytest.raises(ValueError, match='a tag inside'):
    PLANNING.render(protocol.Action(answer='1', plan='</switch>'))


@pytest.mark.parametrize(
  'said',
  [
    'add(1, 2)',
    '{"name": "add", "arguments": [1, 2]}',
    '{"name": "", "arguments": {}}',
    '{"arguments": {}}',
    '[' * 99999,
  ],
)
def test_a_call_that_names_no_tool_is_invalid(said):
  action = NAMED.parse(f'<think>so</think><tool_call>{said}</tool_call>')
  assert not action.valid and action.think == 'so' and not action.calls
  assert action.error == ('tool_call wants {"name": ..., "arguments": {...}}')


def test_calls_with_names_as_published_models_write_them():
  text = '<tool_call>\n{"arguments": {"a": 1}, "name": "add"}\n</tool_call>'
  (call,) = NAMED.parse(text).calls
  assert call == protocol.Call('add', '{"a": 1}')
  wanted = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
  assert NAMED.render(protocol.Action(calls=(call,))) == wanted
  assert protocol.read_call('{"name": "f"}') == protocol.Call('f', '{}')
  with pytest.raises(ValueError, match='names a tool'):
    GRAMMAR.render(protocol.Action(calls=(call,)))
  with pytest.raises(ValueError, match='no tag for a memory'):
    protocol.Grammar(named=True, memory='memory')
  with pytest.raises(ValueError, match='names no tool'):
    NAMED.render(protocol.Action(calls=(protocol.Call('', '{}'),)))
  with pytest.raises(ValueError, match='no object, as JSON'):
    NAMED.render(protocol.Action(calls=(protocol.Call('f', '3'),)))
