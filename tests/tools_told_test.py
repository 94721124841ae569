"""Episodes with tools through published templates: only new ids are added."""

import functools
import pathlib
import re
import tempfile

import numpy as np
import pytest

from agentic_jax import context as context_lib
from agentic_jax import rollout
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax import tools
from agentic_jax import types
from agentic_jax.environments import tool_math
from agentic_jax.models import sizes
from agentic_jax.sampling import programs
from agentic_jax.tasks import pool as pool_lib
from experiments import worlds
from tests import chat_templates
from tests import chat_templates_test
from tests import small_world

NAMES = ('chatml', 'smollm2', 'qwen2.5', 'qwen3', 'thinking', 'llama3', 'gemma')
SLOTS = ('qwen2.5', 'qwen3', 'thinking', 'llama3')
SAYS = ('12 <|im_end|>', ' é\n', '<think></think>')


def add(numbers: str) -> str:
  """Adds <|im_end|>.

  Args:
    numbers: to add.
  """
  return numbers


class Adding:
  """Three turns, whatever is said; each is answered by a tool."""

  tools = (tools.describe(add),)

  def reset(self, task, seed):
    del seed
    return types.Transition(0, types.Observation(task.prompt))

  def step(self, state, action, seed):
    del action, seed
    said = types.Observation(SAYS[state])
    return types.Transition(state + 1, said)


class Plain(Adding):
  """The same without tools."""

  tools = ()


@functools.cache
def _chat(name):
  with tempfile.TemporaryDirectory() as directory:
    chat_templates.write(pathlib.Path(directory), name)
    return tokenizer_lib.TextTokenizer(directory)


def _world(name, environment, **changes):
  bounds = dict(turns=3, action_tokens=20, segment_tokens=2000) | changes
  return small_world.world(environment, tokenizer=_chat(name), **bounds)


REQUEST = rollout.Request(0, types.Task(0, 'Q'), 0)


@functools.cache
def _sampler():
  """Of a vocabulary that all templates share, and for their longest prompt."""
  made = _chat('chatml')
  return small_world.make_sampler(
    config=sizes.load('toy', made.vocab_size),
    shape=programs.shape_for(600, 2),
    stop_ids=(7,),
  )


class Spy:
  """A sampler that keeps what it was fed."""

  def __init__(self, sampler):
    self._sampler = sampler
    self.fed: list[list[int]] = []

  def __getattr__(self, name):
    return getattr(self._sampler, name)

  def open(self, slot, ids, *arguments, **settings):
    """Begins a slot."""
    self.fed.append(list(ids))
    return self._sampler.open(slot, ids, *arguments, **settings)

  def extend(self, slot, ids, *arguments, **settings):
    """Adds to a slot."""
    self.fed.append(list(ids))
    return self._sampler.extend(slot, ids, *arguments, **settings)


@pytest.mark.parametrize('name', NAMES)
def test_a_rollout_of_three_turns_only_appends(name):
  """What was sampled is bytes at random, which no one could encode again."""
  words, spy = _chat(name), Spy(_sampler())
  world = _world(name, Adding(), segment_tokens=600)
  (episode,) = small_world.play(world, [REQUEST], by=spy)
  (segment,) = episode.segments
  said = small_world.said(episode)
  assert len(said) == 3 and not episode.failure
  assert any(words.action(words.decode(ids)) != ids for ids in said)
  opening = words.prompt('Q', tools=Adding.tools)
  assert ('numbers' in words.decode(opening)) == (name in SLOTS)
  wanted, fed = [*opening, *said[0]], [opening]
  for ids, answer in zip(said[1:], SAYS[:2], strict=True):
    new = words.observation(answer, tool=True)
    wanted, fed = wanted + new + ids, [*fed, new]
  # The last observation is seen by nobody, and is not trained on.
  assert segment.tokens.tolist()[: len(wanted)] == wanted
  assert spy.fed == fed
  np.testing.assert_array_equal(
    segment.tokens[segment.action_mask], np.concatenate(said)
  )


@pytest.mark.parametrize('name', NAMES)
def test_a_demonstration_is_what_the_template_makes_of_it(name):
  """Wherever it keeps the past; where it does not, the thoughts stay."""
  words = _chat(name)
  thought = '<think>\nWhy?\n</think>\n\n'
  actions = [f'{thought}<tool>1+1</tool>', f'{thought}<tool>2</tool>', 'Two.']
  pool = pool_lib.Pool([REQUEST.task], seed=0)
  world = _world(name, Adding(), action_tokens=99)
  source = rollout.Demonstrations(
    world, pool, lambda task, seed: actions, episodes_per_step=1
  )
  (episode,) = source.batch(0, None).episodes
  (segment,) = episode.segments
  role = 'tool' if name in chat_templates_test.OF_TOOLS else 'user'
  messages = [{'role': 'user', 'content': 'Q'}]
  for action, answer in zip(actions[:2], SAYS[:2], strict=True):
    messages.append({'role': 'assistant', 'content': action})
    messages.append({'role': role, 'content': answer})
  made, whole = segment.tokens.tolist(), words.prompt(messages, Adding.tools)
  assert words.keeps_past(tool=True)
  if name == 'thinking':
    # It begins each of the policy's messages in a thought, which these begin
    # once more: what was said stays as it was said.
    assert words.decode(made).count('<think>\n<think>\nWhy?') == 2
  else:
    assert made[: len(whole)] == whole
    last = words.action(actions[2])
    assert made[len(whole) : len(whole) + len(last)] == last


@pytest.mark.parametrize('name', NAMES)
def test_every_context_tells_of_tools(name):
  world = _world(name, Adding(), action_tokens=99)
  opening = _chat(name).prompt('Q', tools=Adding.tools)
  for context in context_lib.CONTEXTS.values():
    source = rollout.Demonstrations(
      world._replace(context=context()),
      pool_lib.Pool([REQUEST.task], seed=0),
      lambda task, seed: ['a', 'b', 'c'],
      episodes_per_step=1,
    )
    (episode,) = source.batch(0, None).episodes
    for segment in episode.segments:
      assert segment.tokens[: len(opening)].tolist() == opening


def test_without_tools_or_without_a_template_nothing_changes():
  """An environment that describes nothing, and a tokenizer of bytes."""
  for name in NAMES:
    words = _chat(name)
    world = _world(name, Plain())
    assert world.prompt('Q') == words.prompt('Q')
    assert world.answer('A') == words.observation('A')
  bytes_ = small_world.TOKENIZER
  world = small_world.world(Adding())
  assert world.prompt('Q') == bytes_.prompt('Q')
  assert world.answer('A') == bytes_.observation('A')
  assert not bytes_.takes_tools() and bytes_.keeps_past()
  assert worlds.telling(world) == ''


def test_the_calculator_is_told_of_and_answers_as_a_tool():
  world = _world('qwen2.5', tool_math.ToolMath(), action_tokens=99)
  words = world.tokenizer
  source = rollout.Demonstrations(
    world,
    pool_lib.Pool([types.Task(0, '12*13', '156')], seed=0),
    lambda task, seed: ['<tool>12*13</tool>', '<answer>156</answer>'],
    episodes_per_step=1,
  )
  (episode,) = source.batch(0, None).episodes
  text = words.decode(episode.segments[0].tokens.tolist())
  assert text.count('"name": "calculator"') == 1
  assert text.count('<tool>EXPRESSION</tool>') == 1
  assert 'user\n<tool_response>\n156\n</tool_response><|im_end|>' in text
  assert episode.success


@pytest.mark.parametrize(
  'name, environment, says',
  [
    ('qwen2.5', Adding(), '^The chat template tells .* of its tools: add.$'),
    (
      'smollm2',
      Adding(),
      '^The chat template has no slot .* not told of add.$',
    ),
    ('qwen3', Plain(), '^It drops thoughts of earlier turns; in episodes'),
    ('qwen3', Adding(), '^The chat template tells .* of its tools: add.$'),
    ('chatml', Plain(), '^$'),
  ],
)
def test_the_user_is_told_what_the_template_does(name, environment, says):
  assert re.match(says, worlds.telling(_world(name, environment)))
