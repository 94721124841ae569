"""With a grammar every action is well formed, and its log-probability true."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import grammars
from experiments import worlds
from tests import fidelity_test
from tests import small_world

_SCHEMA = {
  'type': 'object',
  'properties': {'x': {'type': 'integer', 'minimum': 0, 'maximum': 99}},
  'required': ['x'],
  'additionalProperties': False,
}
_PLAIN = protocol.Grammar()
_NAMED = protocol.Grammar(tool='tool_call', named=True)
_PLANS = protocol.Grammar(switch='switch', plan='plan')


@functools.cache
def _words(name):
  return fidelity_test.TOKENIZERS[name]()


@functools.cache
def _grammar(name, actions=_PLAIN, schema=''):
  words = _words(name)
  text = grammars.text_of(actions, words, json.loads(schema or 'null'))
  return grammars.Grammar(text, words, -(-words.vocab_size // 8))


def _allowed(grammar, words, text):
  """The pieces that may follow a text; None if the text itself may not be."""
  matcher = grammar.begin()
  try:
    matcher.take(words.action(text))
  except ValueError:
    return None
  bits = np.unpackbits(matcher.allowed(), bitorder='little')
  return set(words.pieces(np.flatnonzero(bits)))


@pytest.mark.parametrize('name', ['byte', 'chat'])
@pytest.mark.parametrize(
  'text',
  [
    '<think>a<b</tool</think><tool>1</tool>',
    '<tool></tool>',
    '<answer>é, no <tags></answer>',
    '<think></think><answer>3</answer>',
  ],
)
def test_well_formed_actions_are_let_through(name, text):
  assert protocol.Grammar().parse(text).valid
  assert _allowed(_grammar(name), _words(name), text) is not None


@pytest.mark.parametrize('name', ['byte', 'chat'])
@pytest.mark.parametrize(
  'text',
  [
    'x',
    '</tool>',
    '<tool>1</tool><',
    '<tool>1</answer>',
    '<answer>1</think>',
    '<think>a</think><think>',
    '<think>a<tool>',
    '<result>',
  ],
)
def test_nothing_else_is(name, text):
  assert not protocol.Grammar().parse(text).valid
  assert _allowed(_grammar(name), _words(name), text) is None


def test_leads_come_in_their_order():
  words = _words('chat')
  allowed = functools.partial(_allowed, _grammar('chat', _PLANS), words)
  action = protocol.Action(
    switch='yes', plan='p', think='t', calls=(protocol.Call('', 'x'),)
  )
  assert allowed(_PLANS.render(action)) is not None
  assert allowed(_PLANS.render(action._replace(plan=''))) is not None
  assert allowed('<plan>p</plan><switch>') is None


def test_arguments_follow_the_schema():
  schema = json.dumps(_SCHEMA)
  for name in ('byte', 'chat'):
    allowed = functools.partial(
      _allowed, _grammar(name, schema=schema), _words(name)
    )
    assert allowed('<tool>{"x": 12}</tool>') is not None
    assert allowed('<answer>anything</answer>') is not None
    assert allowed('<tool>{"x": 100') is None
    assert allowed('<tool>{"y"') is None
    assert allowed('<tool>1') is None


def _play(name, controls, limit=40):
  words = _words(name)
  world = small_world.world(
    tokenizer=words, turns=2, action_tokens=limit, segment_tokens=110
  )
  config = sizes.load('toy', words.vocab_size, layers=1)
  sampler = small_world.make_sampler(
    config=config,
    stop_ids=words.stop_ids(world.grammar.stop_strings),
    find_stop=worlds.find_stop(world),
    controls=controls,
  )
  played = small_world.play(
    world, small_world.requests(3, 2), by=sampler, temperature=1.0
  )
  return config, played


def _forced_close(schema=''):
  """Bytes of content are few: tags are likely where the grammar allows them."""
  words = _words('byte')
  return controls_lib.Controls(
    grammar=_grammar('byte', schema=schema),
    # Letters and signs of UTF-8 are left out, so that actions end soon.
    forbidden=tuple(range(14, 48)) + tuple(range(58, 256)),
    record=True,
  ), words


def test_sampled_actions_are_well_formed_and_score_as_sampled():
  controls, words = _forced_close()
  config, played = _play('byte', controls)
  turns = [turn for e in played for turn in e.turns]
  ended = [turn for turn in turns if not turn.cut]
  assert len(ended) >= 4
  for turn in ended:
    parsed = protocol.Grammar().parse(turn.action)
    assert parsed.valid, turn.action
    assert protocol.Grammar().render(parsed) == turn.action
  trajectory = batching.stack(
    played, small_world.batch_shape(3, 2, row_tokens=150, action_tokens=80)
  ).trajectory
  found = jax.jit(functools.partial(transformer.outputs, config))(
    small_world.params(config), trajectory
  )
  mask = trajectory.action_mask
  gap = np.abs(np.asarray(found.logprobs) - trajectory.sampler_logprobs)
  assert np.max(gap[mask]) < 1e-5
  # An action begins with one of three tags, and little else is possible.
  first = [s.kept[s.action_mask][0] for e in played for s in e.segments]
  tags = {'<think>', '<tool>', '<answer>'}
  for bits in first:
    ids = np.flatnonzero(np.unpackbits(bits, bitorder='little'))
    assert {words.decode([i]) for i in ids} == tags


def test_tags_of_several_tokens_and_a_schema():
  controls = controls_lib.Controls(
    grammar=_grammar('chat', schema=json.dumps(_SCHEMA))
  )
  _, played = _play('chat', controls, limit=45)
  called = [
    re.search('<tool>(.*)', turn.action, re.DOTALL)
    for e in played
    for turn in e.turns
  ]
  assert any(called)
  for found in called:
    if found and found[1].endswith('</tool>'):
      assert 0 <= json.loads(found[1].removesuffix('</tool>'))['x'] <= 99


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
  words, actions = _words('byte'), protocol.Grammar()
  load = lambda name: grammars.load(
    recipe_lib.Sampling(grammar=str(name)), actions, words, words.vocab_size
  )
  assert load('') is None
  assert load('actions') is not None
  with pytest.raises(ValueError, match="absent.json' is no file.*actions"):
    load(tmp_path / 'absent.json')
  path = tmp_path / 'schema.json'
  path.write_text('{"type": "nonsense"}')
  with pytest.raises(ValueError, match='not valid: .*Mend the schema'):
    load(path)
  controls = controls_lib.Controls(
    grammar=_grammar('byte'), forced=tuple(words.action('x'))
  )
  with pytest.raises(
    ValueError, match='does not allow the tokens .* of forced'
  ):
    _play('byte', controls)
  tags = tuple(words.special(f'<{x}>') for x in ('think', 'tool', 'answer'))
  controls = controls_lib.Controls(grammar=_grammar('byte'), forbidden=tags)
  with pytest.raises(
    ValueError, match='only tokens come next that are forbidden'
  ):
    _play('byte', controls)
  monkeypatch.setitem(__import__('sys').modules, 'llguidance', None)
  with pytest.raises(ValueError, match=r"pip install 'agentic_jax\[grammar\]'"):
    load('actions')


def test_a_call_that_names_its_tool_is_json():
  grammar, words = _grammar('byte', _NAMED), _words('byte')
  call = '<tool_call>{"name": "f", "arguments": {"a": [1]}}</tool_call>'
  assert _NAMED.parse(call).valid
  assert _allowed(grammar, words, call) is not None
  assert _allowed(grammar, words, '<answer>f</answer>') is not None
  for wrong in ('<tool_call>f', '<tool_call>{"name": 3', '<tool_call>{"x'):
    assert _allowed(grammar, words, wrong) is None
