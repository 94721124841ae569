"""Episodes with images: what was seen is scored, shared and trained on."""

import base64
import dataclasses
import functools
import json
import re
from typing import NamedTuple
import zlib

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import transformer
from agentic_jax.report import viewer
from agentic_jax.rollout import pictures
from agentic_jax.sampling import feeding
from agentic_jax.sampling import slots
from agentic_jax.train import records
from experiments import chat
from tests import chat_templates
from tests import seeing_world as seeing
from tests import small_world
from tests import tiny_training

PROMPTS = ('0 red', '3 blue', '0 red', '2 green')


@functools.cache
def _played(context='append_all', members=2):
  world = seeing.world(context=context)
  return small_world.play(
    world, seeing.requests(PROMPTS, members), by=seeing.sampler()
  )


@functools.cache
def _outputs():
  return jax.jit(functools.partial(transformer.outputs, seeing.config()))


@pytest.mark.parametrize('context', ['append_all', 'keep_last'])
def test_rows_score_as_they_were_sampled(context):
  played = _played(context)
  assert not any(e.failure for e in played), [e.detail for e in played]
  stacked = batching.stack(played, seeing.batch_shape(4, 2))
  trajectory = stacked.trajectory
  params = small_world.params(seeing.config())
  found = np.asarray(_outputs()(params, trajectory).logprobs)
  mask = trajectory.action_mask
  gap = np.abs(found - trajectory.sampler_logprobs)[mask]
  assert mask.sum() > 60 and gap.max() < 1e-4
  # Rows hold several segments, segments several images.
  assert trajectory.segment.max() > 1 and trajectory.sight.max() > 8
  dark = trajectory._replace(images=np.zeros_like(trajectory.images))
  other = np.asarray(_outputs()(params, dark).logprobs)
  assert np.abs(other - trajectory.sampler_logprobs)[mask].max() > 1e-2


def _counting(sampler, monkeypatch):
  """Notes which programs of a sampler are called."""
  called, store = [], sampler._store
  made, see = store.programs, store.eyes._see

  def noted(name, program):
    def call(*arguments):
      called.append(name)
      return program(*arguments)

    return call

  counting = made._replace(
    copy=noted('copy', made.copy), prefill=noted('prefill', made.prefill)
  )
  monkeypatch.setattr(store, 'programs', counting)
  monkeypatch.setattr(sampler._store.eyes, '_see', noted('see', see))
  return called


def test_order_and_shared_prompts_change_no_bit(monkeypatch):
  sampler, wanted = seeing.sampler(), _played()
  called = _counting(sampler, monkeypatch)
  world = seeing.world()
  monkeypatch.setattr(feeding, 'share', lambda slots, waiting: (waiting, []))
  asked = seeing.requests(PROMPTS, 2)[::-1]
  encode, encoded = sampler._store.eyes._encode, []
  monkeypatch.setattr(
    sampler._store.eyes,
    '_encode',
    lambda params, batch: (encoded.extend(batch), encode(params, batch)),
  )
  with metrics.CompileCounter() as counter:
    found = small_world.play(world, asked, by=sampler)
  assert 'copy' not in called
  # Each image once.
  shown = sum(len(s.images) for e in found for s in e.segments)
  assert len(encoded) == shown > 8
  # Nothing compiles anew.
  assert not counter.names
  for one, other in zip(found[::-1], wanted, strict=True):
    for own, theirs in zip(one.segments, other.segments, strict=True):
      for name in types.Segment._fields:
        np.testing.assert_array_equal(getattr(own, name), getattr(theirs, name))


def _said(image):
  return pictures.say(
    seeing.TOKENIZER.prompt,
    types.Observation('Where?', (seeing.draw(*image),)),
    seeing.IMAGES,
  )


def _open(sampler, slot, image, **others):
  ids, placed = _said(image)
  settings = dict(draw=0, member=slot, turn=0, temperature=0.0, limit_tokens=4)
  sampler.open(slot, ids, images=placed, **(settings | others))
  return ids


def test_equal_ids_with_other_images_share_nothing(monkeypatch):
  sampler = seeing.sampler()
  sampler.load(small_world.params(seeing.config()), 0)
  called = _counting(sampler, monkeypatch)
  shown = [(0, 'red'), (3, 'blue'), (0, 'red')]
  ids = {_open(sampler, slot, image) for slot, image in enumerate(shown)}
  assert len(ids) == 1
  said = {g.slot: g.logprobs for g in sampler.tick()}
  assert called.count('see') == called.count('copy') == 1
  np.testing.assert_array_equal(said[0], said[2])
  assert not np.array_equal(*sampler._store.eyes._seen[:2])
  # A later episode is copied from a slot that saw the same.
  called.clear()
  sampler.close(2)
  _open(sampler, 2, (3, 'blue'))
  sampler.tick()
  assert called == ['copy']
  called.clear()
  _open(sampler, 2, (3, 'green'))
  sampler.tick()
  assert 'copy' not in called and called.count('see') == 1


def _turns_of(sampler, slot):
  found = {}
  while sampler.num_active:
    found |= {g.slot: g for g in sampler.tick()}
  return found[slot].tokens.tobytes(), found[slot].logprobs.tobytes()


def test_what_was_seen_goes_along(monkeypatch):
  sampler = seeing.sampler()
  sampler.load(small_world.params(seeing.config()), 0)
  _open(sampler, 0, (0, 'red'), temperature=1.0)
  wanted = _turns_of(sampler, 0)
  sampler.load(small_world.params(seeing.config()), 0)
  _open(sampler, 0, (0, 'red'), temperature=1.0)
  parked = sampler.park(0)
  _open(sampler, 0, (3, 'blue'), temperature=1.0)
  other = _turns_of(sampler, 0)
  sampler.resume(1, parked)
  assert _turns_of(sampler, 1) == wanted != other
  # A fork after an image need not see it again; one within it must.
  parked, called = sampler.park(1), _counting(sampler, monkeypatch)
  shown = []
  ids, ((place, _),) = _said((0, 'red'))
  for cut, sees in ((len(ids) - 1, 0), (place + 1, 1)):
    called.clear()
    _open(
      sampler, 2, (0, 'red'), member=0, temperature=1.0, begin=parked.cut(cut)
    )
    shown.append(_turns_of(sampler, 2))
    assert called.count('see') == sees
  assert shown[0] == wanted and shown[1][0] == wanted[0]


def _answer(refused=()):
  """The second turn of a slot that refused to be extended otherwise."""
  sampler = seeing.sampler()
  sampler.load(small_world.params(seeing.config()), 0)
  _open(sampler, 0, (0, 'red'))
  while sampler.num_active:
    sampler.tick()
  for tokens, others, message in refused:
    with pytest.raises(ValueError, match=message):
      sampler.extend(0, tokens, turn=1, **others)
  assert len(sampler._store.eyes.images(0)) == 1 and not sampler.num_active
  sampler.extend(0, [65, 66, 67], turn=1, limit_tokens=4)
  said = []
  while sampler.num_active:
    said += sampler.tick()
  return said[0].tokens.tolist(), said[0].logprobs.tolist()


def test_what_a_slot_refuses_leaves_it_as_it_was():
  seen = ((0, seeing.draw(3, 'blue')),)
  run = [0] * seeing.VISION.tokens
  chance = slots.Chance(draw=3, member=3, temperature=9.0)
  refused = (
    ([66, 67], dict(limit_tokens=9999, chance=chance), 'do not fit a slot'),
    ([*run, 66], dict(limit_tokens=9999, images=seen), 'do not fit a slot'),
    (run, dict(limit_tokens=4, images=seen), 'end a span'),
  )
  assert _answer(refused) == _answer()


def _learned(tmp_path, **changes):
  """The parameters before and after two steps of imitation, by name."""
  vision = dataclasses.replace(seeing.VISION, layers=1, **changes)
  config = seeing.config(layers=1, vision=vision)
  recipe = recipe_lib.supervised(learning_rate=1e-2)
  mesh = sharding.make_mesh()
  state = train.init_state(config, recipe, mesh, jax.random.key(1))
  before = jax.tree.map(np.array, state.policy)
  plan = train.Plan(
    config=config,
    shape=seeing.batch_shape(4, 2),
    mesh=mesh,
    workdir=tmp_path,
    steps=2,
    pieces=seeing.TOKENIZER.pieces,
    checkpoint_every=2,
  )
  with metrics.CompileCounter() as counter:
    result = train.run(recipe, tiny_training.Fixed(_played()), plan, state)
  assert sum('accumulate' in name for name in counter.names) == 1
  after = tiny_training.by_name(result.state.policy)
  kept = tiny_training.by_name(train.load_params(tmp_path))
  for name, value in after.items():
    np.testing.assert_array_equal(kept[name], value)
  return tiny_training.by_name(before), after


def test_a_frozen_encoder_stays_and_all_else_learns(tmp_path):
  """That an encoder which is not frozen learns, its gradients say elsewhere."""
  before, after = _learned(tmp_path, frozen=True)
  same = {k for k, value in before.items() if np.array_equal(value, after[k])}
  assert len(same) > 15
  assert same == {k for k in before if k.startswith('vision.')} - {
    'vision.projector'
  }


def test_a_viewer_shows_what_was_seen(tmp_path):
  episode = _played()[0]
  record = records.record(episode, seeing.TOKENIZER.pieces)
  packed = viewer.pack(json.loads(json.dumps(record)))
  shown = packed['segments'][0]['images']
  assert len(shown) == len(episode.segments[0].images) >= 1
  assert (shown[0]['at'], shown[0]['tokens']) == (1, 4)
  data = base64.b64decode(shown[0]['png'].partition(',')[2])
  at = data.index(b'IDAT') + 4
  rows = np.frombuffer(zlib.decompress(data[at:]), np.uint8).reshape(8, -1)
  np.testing.assert_array_equal(
    rows[:, 1:].reshape(8, 8, 3), episode.segments[0].images[0]
  )
  record['segments'][0]['images'] = [
    {'at': 1, 'tokens': 4, 'png': 'https://example.org/x.png'},
    {'at': 1, 'tokens': 4, 'png': 'data:image/png;base64,"><script>'},
    'nonsense',
  ]
  assert 'images' not in viewer.pack(record)['segments'][0]


class Showing(NamedTuple):
  """Says what it is told to."""

  said: tuple

  def reset(self, task, seed):
    return types.Transition(0, self.said[0])

  def step(self, state, action, seed):
    return types.Transition(state + 1, self.said[state + 1])


def _scripted(said, action='x', **changes):
  world = seeing.world(Showing(tuple(said)), **changes)
  script = lambda task, seed: [action] * (len(said) - 1)
  return rollout.play(world, script, rollout.Request(0, types.Task(0, ''), 0))


@pytest.mark.parametrize(
  'image, changes, message',
  [
    (np.zeros((8, 8, 3), np.float32), {}, r'got float32 \[8, 8, 3\]'),
    (np.zeros((8, 8, 4), np.uint8), {}, r'uint8 \[8, 8, 3\], got uint8 \[8'),
    (np.zeros((0, 8, 3), np.uint8), {}, r'uint8 \[8, 8, 3\], got uint8 \[0'),
    ('x.png', {}, 'got str'),
    (seeing.draw(0, 'red'), {'images': None}, 'the policy sees none; take a'),
    (seeing.draw(0, 'red'), {'segment_images': 1}, 'raise --limit=segment_im'),
  ],
)
def test_images_that_do_not_fit_cost_their_episode(image, changes, message):
  episode = _scripted([types.Observation('', (image, image))], **changes)
  assert episode.failure in ('garbage', 'long')
  assert re.search(message, episode.detail), episode.detail


def test_images_that_are_no_tuple_cost_their_episode():
  episode = _scripted([types.Observation('', seeing.draw(0, 'red'))])
  assert episode.failure == 'garbage'
  assert episode.detail == 'wanted a tuple of images, got ndarray'


def test_a_segment_ends_where_it_has_no_room_for_an_image():
  image = seeing.draw(0, 'red')
  one, two = (
    types.Observation('', (image,)),
    types.Observation('', (image,) * 2),
  )
  assert not _scripted([one, two], segment_images=3).truncated
  assert _scripted([two, two], segment_images=3).truncated


def test_what_the_policy_says_is_no_image():
  image = seeing.draw(1, 'blue')
  said = [types.Observation('<image>', (image,)), types.Observation('')]
  episode = _scripted(said, action='<image>')
  (segment,) = episode.segments
  (own,) = np.nonzero(segment.action_mask)
  assert segment.tokens[own].tolist() == [seeing.IMAGES.token]
  assert segment.sight.tolist() == [-1, 0, 1, 2, 3] + [-1] * (
    len(segment.tokens) - 5
  )
  assert segment.tokens[1:5].tolist() == [seeing.IMAGES.token] * 4
  assert seeing.TOKENIZER.decode(segment.tokens[5:12]) == '<image>'


# A message is a list of parts, and an image is a token, as in SmolVLM.
_PARTS = """
{%- for m in messages %}{{ '<|im_start|>' ~ m.role }}
{%- for part in m.content %}
{%- if part.type == 'image' %}{{ '<image>' }}
{%- elif part.type == 'text' %}{{ ':' ~ part.text }}{% endif %}
{%- endfor %}{{ '<|im_end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"""


@pytest.mark.parametrize(
  'source, opening, answer',
  [
    (
      chat_templates.CHATML,
      '<|im_start|>user\n@@a<image><|im_end|>\n<|im_start|>assistant\n',
      '<|im_end|>\n<|im_start|>user\n@b<|im_end|>\n<|im_start|>assistant\n',
    ),
    (
      _PARTS,
      '<|im_start|>user@@:a<image><|im_end|><|im_start|>assistant',
      '<|im_end|><|im_start|>user@:b<|im_end|><|im_start|>assistant',
    ),
  ],
)
def test_templates(source, opening, answer, tmp_path):
  chat_templates.write(tmp_path, 'chatml')
  made = tokenizer_lib.read(tmp_path)
  added = made.data['added_tokens']
  image = {**added[0], 'id': added[-1]['id'] + 1, 'content': '<image>'}
  data = {**made.data, 'added_tokens': [*added, image]}
  words = tokenizer_lib.TextTokenizer(
    made._replace(data=data), chat_template=source
  )
  text = lambda ids: words.decode(
    i if i >= 0 else words.encode('@')[0] for i in ids
  )
  ids = words.prompt('a<image>', images=2)
  assert text(ids) == opening and ids.count(tokenizer_lib.IMAGE) == 2
  assert words.special('<image>') not in ids
  ids = words.observation('b', images=1)
  assert text(ids) == answer and ids.count(tokenizer_lib.IMAGE) == 1
  assert text(words.observation('b')) == answer.replace('@', '')


# A chat.


def _conversation(sees=seeing.IMAGES):
  sampler = seeing.sampler()
  sampler.load(small_world.params(seeing.config()), 0)
  return chat.Conversation(
    sampler, seeing.TOKENIZER, temperature=0.0, limit_tokens=8,
    sees=sees, limit_images=2,
  )  # fmt: skip


def test_a_chat_sees():
  """What it says depends on what it was shown, as in an episode."""
  made = _conversation()
  made.reply('Where?', [seeing.draw(1, 'red')])
  prompt = seeing.TOKENIZER.prompt('Where?', images=1)
  at = prompt.index(-1)
  assert made.ids[at : at + 4] == [seeing.IMAGES.token] * 4
  assert made.ids[at + 4 :][: len(prompt) - at - 1] == prompt[at + 1 :]
  episode, _ = small_world.play(
    seeing.world(action_tokens=8),
    seeing.requests(['1 red', '1 blue']),
    by=seeing.sampler(),
    temperature=0.0,
  )
  first = small_world.said(episode)[0]
  # `play` has used the slots.
  made = _conversation()
  made.reply('Where?', [seeing.draw(1, 'red')])
  assert made.ids[-len(first) :] == first
  # It begins anew where there is no room for another image.
  length = len(made.ids)
  made.reply('And', [seeing.draw(2, 'red')])
  assert len(made.ids) > length
  made.reply('Where?', [seeing.draw(1, 'red')])
  assert made.ids[-len(first) :] == first and len(made.ids) == length
  with pytest.raises(ValueError, match='3 images at once.* has room for 2'):
    made.reply('x', [seeing.draw(1, 'red')] * 3)
  with pytest.raises(ValueError, match='the policy sees none'):
    _conversation(sees=None).reply('x', [seeing.draw(1, 'red')])
