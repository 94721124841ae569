"""--model names a published checkpoint: found, trained, resumed, exported."""

import io
import json
import pathlib
import re
import sys

from absl import flags
from absl.testing import flagsaver

# Its flags must be there before any are saved.
from array_record.python import array_record_data_source  # noqa: F401
import jax
import ml_dtypes
import numpy as np
import pytest
import rich.console

from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax import train
from agentic_jax.models import pretrained
from experiments import chat
from experiments import common
from experiments import export
from experiments import policies
from experiments import run_config
from tests import tiny_published
from tests import tiny_training

LLAMA = tiny_published.CONFIGS['llama']


@pytest.fixture(scope='module', name='made')
def _made():
  return tiny_published.byte_level(tiny_published.single_digits())


@pytest.fixture(name='directory')
def _directory(tmp_path, made):
  found = tiny_published.tensors(LLAMA)
  return tiny_published.write_directory(tmp_path / 'model', LLAMA, found, made)


@pytest.fixture(name='file')
def _file(tmp_path, directory):
  found = tiny_published.tensors(LLAMA)
  data = tokenizer_lib.read(directory).data
  return tiny_published.write_gguf(
    tmp_path / 'model.gguf', 'llama', found, data=data
  )


def _flags(model: pathlib.Path, workdir: pathlib.Path, **more):
  """The flags of a small run."""
  flags.FLAGS.mark_as_parsed()
  return flagsaver.flagsaver(
    model=str(model),
    workdir=str(workdir),
    environment='echo',
    recipe='supervised',
    tasks_per_step=2,
    slots=4,
    evaluate_every=0,
    checkpoint_every=1,
    limit=['turns=2', 'action_tokens=30', 'segment_tokens=111'],
    **more,
  )


def _equal(ours, theirs) -> None:
  ours, theirs = tiny_training.by_name(ours), tiny_training.by_name(theirs)
  assert ours.keys() == theirs.keys()
  for name, value in ours.items():
    np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_other_names_are_refused(tmp_path):
  with pytest.raises(
    ValueError, match=r"'org/it' is neither a size.*'mini'.*smollm2-135m.*fetch"
  ):
    policies.find('org/it')
  assert policies.find('mini') is None
  with pytest.raises(ValueError, match='config.json is missing'):
    policies.find(str(tmp_path))


def test_what_a_directory_lacks_is_named(directory):
  (directory / 'tokenizer.json').unlink()
  model = pretrained.find(str(directory))
  with pytest.raises(ValueError, match='no tokenizer.json.*--tokenizer=PATH'):
    model.tokenizer()
  assert policies.tokenizer_of('byte', model, ('<a>',)).vocab_size == 260
  (directory / 'model.safetensors').unlink()
  with pytest.raises(ValueError, match='there are none'):
    pretrained.find(str(directory))


def test_a_tokenizer_too_large_is_refused(directory):
  config = json.loads((directory / 'config.json').read_text())
  (directory / 'config.json').write_text(
    json.dumps(config | {'vocab_size': 200})
  )
  model = pretrained.find(str(directory))
  words = policies.tokenizer_of('', model, ())
  with pytest.raises(ValueError, match='200 embeddings, and its tokenizer 3'):
    policies.configure('it', model, words, positions=64)


def test_half_precision_in_and_as(tmp_path):
  found = {
    name: array.astype(ml_dtypes.bfloat16)
    for name, array in tiny_published.tensors(LLAMA).items()
  }
  path = tiny_published.write_directory(tmp_path / 'half', LLAMA, found)
  model = pretrained.find(str(path))
  for dtype in ('float32', 'bfloat16'):
    config = pretrained.configure(model, positions=64, dtype=dtype)
    params = pretrained.load(model, config, sharding.make_mesh())
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {dtype}
    np.testing.assert_array_equal(
      np.asarray(params['embedding'], np.float32),
      found['model.embed_tokens.weight'].astype(np.float32),
    )


def test_a_digest_sees_the_weights_and_the_configuration(directory, file):
  digest = lambda path: pretrained.digest(pretrained.find(str(path)))
  # A large file counts by samples, the last bytes among them.
  large = directory / 'large'
  of_large = lambda: pretrained.digest(
    pretrained.find(str(directory))._replace(files=(large,))
  )
  large.write_bytes(bytes(3 * 2**20))
  first = of_large()
  large.write_bytes(bytes(3 * 2**20 - 1) + b'x')
  assert first != of_large()
  before = digest(directory)
  assert before == digest(directory) != digest(file)
  path = directory / 'model.safetensors'
  content = bytearray(path.read_bytes())
  content[-3] ^= 1
  path.write_bytes(content)
  changed = digest(directory)
  path = directory / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'rope_theta': 9}))
  assert len({before, changed, digest(directory)}) == 3


def test_a_state_takes_what_is_published_and_makes_the_rest(directory):
  model = pretrained.find(str(directory))
  recipe = recipe_lib.ppo()
  config = pretrained.configure(model, positions=64, output_heads=recipe.heads)
  mesh = sharding.make_mesh()
  params = pretrained.load(model, config, mesh)
  assert 'heads' not in params
  state = train.init_state(config, recipe, mesh, jax.random.key(0), params)
  kept = {k: v for k, v in state.params.items() if k != 'heads'}
  for ours, theirs in zip(
    jax.tree.leaves(kept), jax.tree.leaves(params), strict=True
  ):
    # Given up to the state, and not copied.
    assert ours is theirs
  assert state.params['heads']['value'].shape == (32, 1, 1)
  fresh = train.init_state(config, recipe, mesh, jax.random.key(0))
  assert jax.tree.structure(fresh) == jax.tree.structure(state)
  _equal(fresh.optimizer_state, state.optimizer_state)
  assert np.any(fresh.params['embedding'] != state.params['embedding'])


def test_a_run_goes_on_to_the_bit_and_out_again(tmp_path, file):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  with _flags(file, whole, steps=3):
    run = common.build()
    began = pretrained.load(run.published, run.config, run.mesh)
    _equal(common.initial_state(run).params, began)
    last = common.train_run(run)
  moved = last.state.params['blocks']['query'] - began['blocks']['query']
  assert np.max(np.abs(moved)) > 1e-4
  with _flags(file, parts, steps=1):
    common.train_run(common.build())
  with _flags(file, parts, steps=3):
    _equal(common.train_run(common.build()).state, last.state)
  losses = [
    [record.get('train/loss') for record in metrics.read(workdir)]
    for workdir in (whole, parts)
  ]
  assert losses[0] == losses[1] and len(set(losses[0])) == 4
  described = json.loads((whole / 'config.json').read_text())['model']
  assert described['family'] == 'llama' and described['name'] == str(file)
  assert described['vocab_size'] == LLAMA['vocab_size']

  _comes_out_again(whole, file, last, tmp_path / 'out')
  _another_model_is_another_run(whole, file)


def _comes_out_again(workdir, model, last, output) -> None:
  """Exported and found again, it is what was trained."""
  with flagsaver.flagsaver(init_from=str(workdir), to=str(output)):
    export.main()
  again = pretrained.find(str(output))
  config = pretrained.configure(again, positions=111)
  _equal(
    pretrained.load(again, config, sharding.make_mesh()), last.state.params
  )
  words, before = (
    tokenizer_lib.TextTokenizer(x.tokenizer())
    for x in (again, pretrained.find(str(model)))
  )
  for text in ('naïve 123\n', '<|im_end|>'):
    assert words.prompt(text) == before.prompt(text)


def _another_model_is_another_run(workdir, model) -> None:
  """The weights have changed under the run's feet."""
  content = bytearray(model.read_bytes())
  content[-2] ^= 1
  model.write_bytes(content)
  with _flags(model, workdir, steps=4):
    with pytest.raises(ValueError, match="model.digest was '.*', is"):
      common.train_run(common.build())


def test_a_conversation_keeps_its_tokens(directory, monkeypatch, capsys):
  with _flags(directory, directory / 'run', sample=['temperature=1.0']):
    conversation = chat.converse()
  first = conversation.reply('Hello 12')
  assert conversation.reply('and') != first
  slot = conversation.sampler._slots[0]
  words = conversation.words
  # Both messages lie in the slot, one after the other.
  said = words.decode(conversation.ids)
  assert said.startswith('<|im_start|>user\nHello 12<|im_end|>')
  assert '<|im_start|>user\nand<|im_end|>\n<|im_start|>assistant\n' in said
  assert slot.length + 1 == len(conversation.ids)
  assert not conversation.forgot
  held = list(conversation.ids)
  # On the terminal: a line that no slot holds, and a new beginning.
  monkeypatch.setattr(chat, 'converse', lambda: conversation)
  talk = lambda *lines: monkeypatch.setattr(
    sys, 'stdin', io.StringIO('\n'.join(lines))
  )
  talk('a' * 300)
  chat._talk(rich.console.Console())
  assert conversation.ids == held
  shown = capsys.readouterr()
  assert re.search(
    r'Not said: this is \d+ tokens long .* of 30 .* room for', shown.err
  )
  assert not shown.out
  talk('a' * 300, *['b' * 8] * 5)
  chat._talk(rich.console.Console())
  shown = capsys.readouterr()
  assert shown.err.count('Not said') == 1
  assert 1 <= shown.err.count('all that was said before this line is forg') < 5
  assert 'Hello' not in words.decode(conversation.ids)


def test_chat_and_export_say_what_they_want(tmp_path):
  with _flags(pathlib.Path('mini'), tmp_path):
    with pytest.raises(
      ValueError, match='nothing to say.*--init_from.*smollm2'
    ):
      chat.converse()
    with pytest.raises(ValueError, match="--to='' wants the name"):
      export.main()
  with pytest.raises(ValueError, match='is no run directory'):
    run_config.restore_flags(tmp_path)
