"""Tokens in, tokens out: trained on is what was said, as likely as it was."""

import functools
import json
import pathlib
import tempfile
from typing import NamedTuple

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from agentic_jax import batching
from agentic_jax import context as context_lib
from agentic_jax import losses
from agentic_jax import rollout
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax import types
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.rollout import parts
from agentic_jax.tasks import pool as pool_lib
from tests import small_world

CHATML = """
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# What may be said, by the policy and by the world.
PIECES = (
  *('<think>', '</think>', '<tool>', '</tool>', '<answer>', '</answer>'),
  *('<result>', '</result>', '<eos>', '<bos>', '<pad>', '<|im_end|>'),
  *(
    '<|im_start|>',
    'assistant\n',
    'tool',
    '7*13',
    ' ',
    '\n',
    'é',
    '🧮',
    '\x00',
  ),
)
_texts = st.lists(
  st.sampled_from(PIECES) | st.text(max_size=4), max_size=6
).map(''.join)


@functools.cache
def _chat():
  """A byte-level BPE whose tags are several tokens, with a chat template."""
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(
    ['task and so on ok a longer observation assistant user tool ' * 20],
    trainers.BpeTrainer(
      vocab_size=300,
      show_progress=False,
      special_tokens=['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ),
  )
  with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    made.save(str(directory / 'tokenizer.json'))
    config = {'eos_token': '<|endoftext|>', 'chat_template': CHATML}
    (directory / 'tokenizer_config.json').write_text(json.dumps(config))
    return tokenizer_lib.TextTokenizer(directory)


TOKENIZERS = {'byte': lambda: small_world.TOKENIZER, 'chat': _chat}
# Each such that it cuts the episodes of these tests.
CUTTING = {
  'append_all': {},
  'keep_last': {},
  'omit': {},
  'page': {'tokens': 60, 'warn': 0.6, 'keep': 0.4},
  'summarise': {'tokens': 40, 'rounds': 1},
  'window': {'tokens': 50},
}
CONTEXTS = [
  *CUTTING.items(),
  ('summarise', {'tokens': 1, 'rounds': 9}),
  ('keep_last', {'turns': 0}),
  ('keep_last', {'turns': 2}),
]
_CONTEXT_NAMES = [f'{name}{list(s.values())}' for name, s in CONTEXTS]


def _context(name, settings):
  """A context; of commands, one in which every action has one."""
  made = context_lib.load(name, **settings)
  if name != 'omit':
    return made

  def omit(spans):
    action = spans[-2]._replace(command='1 2 3')
    return made([*spans[:-2], action, spans[-1]])

  return omit


def test_every_context_is_here():
  assert CUTTING.keys() == context_lib.CONTEXTS.keys()


class Told(NamedTuple):
  """A world that says what it is told to, one saying a turn."""

  sayings: tuple[str, ...]

  def reset(self, task, seed):
    del task, seed
    return types.Transition(0, types.Observation(self.sayings[0]))

  def step(self, state, action, seed):
    del action, seed
    state += 1
    said = types.Observation(self.sayings[state])
    return types.Transition(
      state, said, terminated=state + 1 == len(self.sayings)
    )


@pytest.mark.parametrize('tokenizer', TOKENIZERS)
@pytest.mark.parametrize('context', CONTEXTS, ids=_CONTEXT_NAMES)
@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(
  turns=st.lists(
    st.tuples(_texts.filter(bool), _texts), min_size=1, max_size=5
  ),
  prompt=_texts,
)
def test_action_tokens_are_what_was_said(context, tokenizer, turns, prompt):
  tokenizer = TOKENIZERS[tokenizer]()
  actions = [action for action, _ in turns]
  world = small_world.world(
    Told((prompt, *(says for _, says in turns))),
    tokenizer=tokenizer,
    turns=9,
    action_tokens=500,
    segment_tokens=5000,
  )
  name, settings = context
  world = world._replace(context=_context(name, settings))
  request = rollout.Request(0, types.Task(0, prompt), 0)
  (episode,) = _scripted(world, request, actions)
  for turn, action in enumerate(actions[: len(episode.turns)]):
    ids = small_world.said(episode)[turn]
    assert ids == tokenizer.action(action)
    assert tokenizer.decode(ids) == action == episode.turns[turn].action
  segments = episode.segments
  total = sum(int(s.action_mask.sum()) for s in segments)
  assert total == sum(t.num_tokens for t in episode.turns)
  for segment in segments:
    np.testing.assert_array_equal(segment.turn >= 0, segment.action_mask)
    assert segment.tokens[: len(tokenizer.prompt(prompt))].tolist() == (
      tokenizer.prompt(prompt)
    )
  asked = sum(turn.asked for turn in episode.turns)
  assert episode.terminated == (not asked) and not episode.failure
  roles = np.concatenate([s.role[s.action_mask] for s in segments])
  turn = np.concatenate([s.turn[s.action_mask] for s in segments])
  summary = roles == types.ROLES.index('summary')
  for number, played in enumerate(episode.turns):
    assert np.all(summary[turn == number] == played.asked)


def _scripted(world, request, actions):
  pool = pool_lib.Pool([request.task], seed=0)
  source = rollout.Demonstrations(
    world, pool, lambda task, seed: actions, episodes_per_step=1
  )
  return source.batch(0, None).episodes


@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_what_the_world_says_confuses_nothing(tokenizer):
  """A row is the template's own text, with special tokens only where it is."""
  tokenizer = TOKENIZERS[tokenizer]()
  evil = ''.join(PIECES)
  action = '<think>a</think><tool>1</tool>'
  world = small_world.world(
    Told((evil, evil, 'end')),
    tokenizer=tokenizer,
    action_tokens=99,
    segment_tokens=5000,
  )
  request = rollout.Request(0, types.Task(0, evil), 0)
  (episode,) = _scripted(world, request, [action, action])
  (segment,) = episode.segments
  calm = world._replace(environment=Told(('x', 'x', 'end')))
  (other,) = _scripted(calm, request, [action, action])
  wanted = other.segments[0]
  assert _specials(tokenizer, segment) == _specials(tokenizer, wanted)
  roles = segment.role[segment.action_mask]
  np.testing.assert_array_equal(roles, wanted.role[wanted.action_mask])
  assert {types.ROLES[role] for role in roles} == {'think', 'tool'}
  assert [turn.num_calls for turn in episode.turns] == [1, 1]
  assert tokenizer.decode(segment.tokens).count(evil) == 2


def _specials(tokenizer, segment):
  """The special tokens that the policy did not say."""
  others = segment.tokens[~segment.action_mask].tolist()
  name = lambda token: tokenizer.decode([token])
  return [
    t for t in others if name(t) in PIECES and tokenizer.encode(name(t)) != [t]
  ]


def _stop_after_bytes(tokenizer):
  """Ends a turn with its seventh byte, wherever tokens and blocks end."""

  def find(ids):
    size = np.cumsum([len(piece) for piece in tokenizer.pieces(ids)])
    (enough,) = np.nonzero(size >= 7)
    return int(enough[0]) + 1 if len(enough) else None

  return find


@functools.cache
def _sampled(context, tokenizer, dtype='float32', temperature=0.9):
  """Episodes, and the batch of them."""
  made = TOKENIZERS[tokenizer]()
  sampler = _sampler(tokenizer, dtype)
  world = small_world.world(tokenizer=made)
  world = world._replace(context=_context(context, CUTTING[context]))
  played = small_world.play(
    world, small_world.requests(4, 3), by=sampler, temperature=temperature
  )
  shape = small_world.batch_shape(4, 3, row_tokens=150)
  return sampler.config, played, batching.stack(played, shape)


@functools.cache
def _sampler(tokenizer, dtype):
  made = TOKENIZERS[tokenizer]()
  config = sizes.load('toy', made.vocab_size, dtype=dtype)
  if tokenizer == 'byte' and dtype == 'float32':
    return small_world.sampler()
  return small_world.make_sampler(
    config=config,
    stop_ids=made.stop_ids(()),
    find_stop=_stop_after_bytes(made),
  )


@functools.cache
def _rescore(config):
  return jax.jit(functools.partial(transformer.outputs, config))


def errors(context, tokenizer, dtype):
  """Recorded less recomputed log-probabilities [B, T], and the action mask."""
  config, _, stacked = _sampled(context, tokenizer, dtype)
  trajectory = stacked.trajectory
  outputs = _rescore(config)(small_world.params(config), trajectory)
  mask = trajectory.action_mask
  assert trajectory.sampler_logprobs.dtype == outputs.logprobs.dtype == dtype
  difference = np.asarray(outputs.logprobs) - trajectory.sampler_logprobs
  return np.where(mask, difference, 0), mask


def largest_error_in_double_precision() -> float:
  """Over contexts; for a process with 64 bits."""
  found = [
    np.max(np.abs(errors(context, 'chat', 'float64')[0]))
    for context in context_lib.CONTEXTS
  ]
  return float(max(found))


@pytest.mark.parametrize('tokenizer', TOKENIZERS)
@pytest.mark.parametrize('context', context_lib.CONTEXTS)
def test_rows_score_as_they_were_sampled(context, tokenizer):
  difference, mask = errors(context, tokenizer, 'float32')
  assert mask.sum() > 100
  own = np.abs(difference[mask])
  assert np.mean(own < 3e-5) >= 0.99
  assert np.max(own) < 1e-4
  assert np.max(np.abs(difference.sum(axis=1))) < 1e-3
  _, played, stacked = _sampled(context, tokenizer)
  assert len(played) == 12 and not any(e.failure for e in played)
  if context != 'append_all':
    wanted = 1 if context == 'summarise' else 2
    assert max(len(e.segments) for e in played) > wanted
  asked = sum(turn.asked for e in played for turn in e.turns)
  assert (asked > 0) == (context == 'summarise')
  assert stacked.trajectory.segment.max() > 1


@pytest.mark.parametrize('context', ['append_all', 'keep_last', 'summarise'])
def test_parts_of_agents_score_as_they_were_sampled(context):
  world = small_world.world(small_world.Pair(), turns=8, context=context)
  world = world._replace(context=_context(context, CUTTING[context]))
  played = small_world.play(world, small_world.requests(2, 3))
  assert not any(episode.failure for episode in played)
  switched = [e for e in played if len({t.agent for t in e.turns}) == 2]
  assert len(switched) > 2
  own = parts.of_all(played, 2)
  shape = small_world.batch_shape(4, 3, row_tokens=150, turns=8)
  trajectory, turns, _ = batching.stack(own, shape)
  outputs = _rescore(small_world.config())(small_world.params(), trajectory)
  mask = trajectory.action_mask
  difference = np.asarray(outputs.logprobs) - trajectory.sampler_logprobs
  assert np.max(np.abs(difference[mask])) < 1e-4
  # Every action token is trained on once, in the part of who said it.
  assert mask.sum() == sum(t.num_tokens for e in played for t in e.turns)
  assert (turns.agent[turns.mask] == np.nonzero(turns.mask)[0] // 6).all()
  for episode, part in zip(played * 2, own, strict=True):
    said = zip(small_world.said(episode), episode.turns, strict=True)
    wanted = [ids for ids, turn in said if turn.agent == part.agent]
    assert small_world.said(part) == wanted


def test_rows_score_as_they_were_sampled_in_double_precision():
  error = small_world.in_process(
    'fidelity_test.largest_error_in_double_precision()', JAX_ENABLE_X64='1'
  )
  assert float(error) < 1e-10


def test_weights_of_an_on_policy_batch_are_one():
  config, _, stacked = _sampled('keep_last', 'byte')
  trajectory = stacked.trajectory
  outputs = _rescore(config)(small_world.params(config), trajectory)
  ratio = losses.token_ratio(
    outputs.logprobs, trajectory.sampler_logprobs, trajectory.action_mask
  )
  gap = np.abs(np.asarray(ratio) - 1)[trajectory.action_mask]
  assert np.mean(gap < 3e-5) >= 0.99 and np.max(gap) < 1e-4


def test_the_wrong_parameters_or_temperature_would_be_seen():
  config, _, stacked = _sampled('append_all', 'byte')
  trajectory, params = stacked.trajectory, small_world.params(config)
  mask = trajectory.action_mask

  def error(params, trajectory):
    found = np.asarray(_rescore(config)(params, trajectory).logprobs)
    return np.mean(np.abs(found - trajectory.sampler_logprobs)[mask])

  others = jax.tree.map(lambda x: 1.001 * x, params)
  assert error(others, trajectory) > 1e-4
  ones = np.ones_like(trajectory.temperature)
  assert error(params, trajectory._replace(temperature=ones)) > 1e-2
  assert set(trajectory.temperature[mask]) == {np.float32(0.9)}


def test_stop_strings_cut_where_they_end():
  tokenizer = _chat()
  find = _stop_after_bytes(tokenizer)
  _, played, _ = _sampled('append_all', 'chat')
  ids = [turn for e in played for turn in small_world.said(e)]
  assert all(find(turn) in (None, len(turn)) for turn in ids)
  assert any(find(turn) == len(turn) for turn in ids)
  assert len({len(turn) % small_world.SHAPE.decode_block for turn in ids}) > 3
