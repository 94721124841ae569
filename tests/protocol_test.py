"""The tag grammar: parse, render, stop strings and roles."""

import hypothesis
from hypothesis import strategies
import pytest

from agentic_jax import protocol
from agentic_jax import types

GRAMMAR = protocol.Grammar()
TEXT, THINK, TOOL = (types.ROLES.index(r) for r in ('text', 'think', 'tool'))

contents = strategies.text().filter(
  lambda text: not any(tag in text for tag in GRAMMAR.tags)
)
actions = strategies.one_of(
  strategies.builds(
    lambda think, expression: protocol.Action(
      think, (protocol.Call('', expression),)
    ),
    contents,
    contents,
  ),
  strategies.builds(
    lambda think, answer: protocol.Action(think, answer=answer),
    contents,
    contents,
  ),
)
# Texts in which tags are as likely as anything else.
soups = strategies.lists(
  strategies.one_of(strategies.sampled_from(GRAMMAR.tags), strategies.text())
).map(''.join)


@hypothesis.settings(deadline=None)
@hypothesis.given(actions)
def test_parse_inverts_render(action):
  assert GRAMMAR.parse(GRAMMAR.render(action)) == action


@hypothesis.settings(deadline=None)
@hypothesis.given(soups)
def test_what_parses_is_rendered_up_to_space_between_blocks(text):
  action = GRAMMAR.parse(text)
  assert action.valid == (not action.error)
  assert len(action.calls) + (action.answer is not None) == action.valid
  if action.valid:
    assert GRAMMAR.parse(GRAMMAR.render(action)) == action


@hypothesis.settings(deadline=None)
@hypothesis.given(strategies.binary())
def test_arbitrary_bytes_never_raise(data):
  GRAMMAR.parse(data.decode('utf-8', errors='replace'))
  GRAMMAR.parse(data.decode('latin-1'))
  roles = GRAMMAR.roles([data[i : i + 1] for i in range(len(data))])
  assert roles.shape == (len(data),)


@hypothesis.settings(deadline=None)
@hypothesis.given(soups, strategies.lists(strategies.integers(0, 60)))
def test_roles_do_not_depend_on_how_bytes_are_cut(text, cuts):
  data = text.encode()
  of_byte = GRAMMAR.roles([data[i : i + 1] for i in range(len(data))])
  edges = sorted({0, len(data), *(c for c in cuts if c < len(data))})
  pieces = [data[a:b] for a, b in zip(edges, edges[1:])]
  roles = GRAMMAR.roles(pieces)
  assert roles.dtype == 'int8'
  assert roles.tolist() == [int(of_byte[e]) for e in edges[:-1]][: len(pieces)]


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


def test_names_of_tags_are_checked():
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
  ],
)
def test_what_has_no_text_is_not_rendered(action, fault):
  with pytest.raises(ValueError, match=fault):
    GRAMMAR.render(action)
