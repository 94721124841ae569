"""Checkpoints in and out to the bit; read by pieces; broken ones refused."""

import dataclasses
import math
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from tests import pretrained_cases as cases
from tests import small_world

WEIGHTS = 'model.safetensors'


def _tensors(directory):
  found = {}
  for path in directory.glob('*.safetensors'):
    found |= safetensors.numpy.load_file(path)
  return found


def _assert_same(found, wanted):
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    assert found[name].dtype == value.dtype, name
    assert found[name].shape == value.shape, name
    assert found[name].tobytes() == value.tobytes(), name


def _copy(case, directory, change=lambda tensors: None, **config):
  """A checkpoint like that of a case, with changed tensors and fields."""
  directory.mkdir(exist_ok=True)
  cases.to_directory(cases.FOLDER / case, config, directory)
  tensors = _tensors(cases.FOLDER / case)
  change(tensors)
  safetensors.numpy.save_file(tensors, directory / WEIGHTS)
  return directory


@pytest.mark.parametrize('case', cases.CASES)
def test_out_and_in_again_to_the_bit(case, tmp_path):
  source = cases.FOLDER / case
  model = cases.load(source)
  saving.export(tmp_path, model.params, model.config, source=source)
  _assert_same(_tensors(tmp_path), _tensors(source))
  read = lambda folder: families.read(
    loading.read_json(folder / 'config.json'), positions=cases.POSITIONS
  )
  assert read(tmp_path) == read(source) == model.config


@pytest.mark.parametrize('case', ['phi3_long.deep', 'gemma2.narrow'])
def test_half_precision(case, tmp_path):
  def narrow(tensors):
    for name, value in tensors.items():
      tensors[name] = value.astype(ml_dtypes.bfloat16)

  source = _copy(case, tmp_path / 'in', narrow, dtype='bfloat16')
  model = cases.load(source, 'bfloat16')
  kinds = {x.dtype for x in jax.tree.leaves(model.params)}
  assert kinds == {np.dtype(ml_dtypes.bfloat16)}
  saving.export(tmp_path / 'out', model.params, model.config, source=source)
  _assert_same(_tensors(tmp_path / 'out'), _tensors(source))
  assert loading.read_json(tmp_path / 'out/config.json')['dtype'] == 'bfloat16'
  # The same numbers in float32, which holds them all.
  wide = cases.load(source).params
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float32)),
    wide,
    model.params,
  )


def test_several_files_with_an_index(tmp_path, monkeypatch):
  source = cases.FOLDER / 'phi3_short.narrow'
  model = cases.load(source)
  monkeypatch.setattr(saving, '_LARGEST_FILE', 4000)
  saving.export(tmp_path, model.params, model.config, source=source)
  files = sorted(tmp_path.glob('*.safetensors'))
  assert len(files) > 3 and not (tmp_path / WEIGHTS).exists()
  assert files[0].name == f'model-00001-of-{len(files):05}.safetensors'
  _assert_same(_tensors(tmp_path), _tensors(source))
  index = loading.read_json(tmp_path / loading.INDEX)
  size = sum(x.nbytes for x in _tensors(source).values())
  assert index['metadata']['total_size'] == size
  for name, file in index['weight_map'].items():
    assert name in safetensors.numpy.load_file(tmp_path / file)
  again = cases.load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
  files[1].unlink()
  with pytest.raises(ValueError, match=f'wants weights.*{files[1].name}'):
    cases.load(tmp_path)


def test_tied_and_untied(tmp_path):
  """A tied model may bring the embedding twice; an untied one must."""

  def twice(tensors):
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']

  tied = cases.load(_copy('llama3.narrow', tmp_path / 'tied', twice))
  assert 'unembedding' not in tied.params
  untied = dict(tie_word_embeddings=False)
  with pytest.raises(ValueError, match='lacks lm_head.weight, which config'):
    cases.load(_copy('llama3.narrow', tmp_path / 'lacks', **untied))
  found = cases.load(_copy('llama3.narrow', tmp_path / 'has', twice, **untied))
  np.testing.assert_array_equal(
    found.params['unembedding'], found.params['embedding']
  )


def _remove(name):
  return lambda tensors: tensors.pop(name)


def _put(name, *shape):
  return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


_QUERY = 'model.layers.1.self_attn.q_proj.weight'


@pytest.mark.parametrize(
  'case, change, text',
  [
    ('llama2.narrow', _remove(_QUERY), f'lacks {_QUERY}.*has 19 tensors such'),
    (
      'llama2.narrow',
      _put(_QUERY, 16, 15),
      r'q_proj.weight of shape \(16, 15\), but config.json calls for \(16, 16',
    ),
    (
      'llama2.narrow',
      _put('model.layers.2.mlp.up_proj.weight', 24, 16),
      r"has \['model.layers.2.mlp.up_proj.weight'\] and no place.*another",
    ),
    (
      'phi3_long.narrow',
      _put('model.layers.0.self_attn.qkv_proj.weight', 33, 16),
      r'qkv_proj.weight of shape \(33, 16\), but .* calls for \(32, 16\)',
    ),
    (
      'phi3_long.narrow',
      _put('model.layers.0.mlp.gate_up_proj.weight', 47, 16),
      r'gate_up_proj.weight of shape \(47, 16\), but .* calls for \(48, 16\)',
    ),
  ],
)
def test_tensors_must_be_those_of_the_model(case, change, text, tmp_path):
  with pytest.raises(ValueError, match=text):
    cases.load(_copy(case, tmp_path, change))


def test_tables_that_are_computed_here_are_no_surprise(tmp_path):
  table = _put('model.layers.0.self_attn.rotary_emb.inv_freq', 2)
  cases.load(_copy('llama2.narrow', tmp_path, table))


def test_broken_files(tmp_path):
  with pytest.raises(ValueError, match='config.json is missing; a published'):
    cases.load(tmp_path)
  (tmp_path / 'config.json').write_text('{"model_type": ')
  with pytest.raises(ValueError, match='config.json is no JSON: Expecting'):
    cases.load(tmp_path)
  (tmp_path / 'config.json').write_text('[]')
  with pytest.raises(ValueError, match='holds a list, wanted an object'):
    cases.load(tmp_path)
  shutil.copy(cases.FOLDER / 'llama2.narrow/config.json', tmp_path)
  with pytest.raises(ValueError, match='wants weights in .*there are none'):
    cases.load(tmp_path)
  whole = (cases.FOLDER / 'llama2.narrow' / WEIGHTS).read_bytes()
  for broken in (b'', b'no weights', whole[:100], whole[:-1]):
    (tmp_path / WEIGHTS).write_bytes(broken)
    with pytest.raises(ValueError, match=f'{WEIGHTS} is no safetensors file'):
      cases.load(tmp_path)
  (tmp_path / WEIGHTS).write_bytes(whole)
  cases.load(tmp_path)


def test_only_what_has_a_place_is_written(tmp_path):
  source = cases.FOLDER / 'llama2.narrow'
  model = cases.load(source)
  params = model.params | {'heads': {'value': np.zeros((16, 1, 1), np.float32)}}
  with pytest.raises(ValueError, match='has no place for heads/value'):
    saving.export(tmp_path, params, model.config, source=source)
  assert not list(tmp_path.iterdir())


def test_what_lies_beside_the_weights_goes_along(tmp_path):
  source = _copy('qwen3.narrow', tmp_path / 'in')
  (source / 'tokenizer.json').write_text('{}')
  (source / 'README.md').write_text('other')
  model = cases.load(source)
  saving.export(tmp_path / 'out', model.params, model.config, source=source)
  names = {path.name for path in (tmp_path / 'out').iterdir()}
  assert names == {'config.json', WEIGHTS, 'tokenizer.json'}


@pytest.mark.parametrize('case', ['llama2.narrow', 'qwen3.narrow'])
@pytest.mark.parametrize('remat', ['', 'block'])
def test_a_model_without_a_directory_is_written(case, remat, tmp_path):
  model = cases.load(cases.FOLDER / case)
  trained = dataclasses.replace(model.config, remat=remat)
  saving.export(tmp_path, model.params, trained)
  _assert_same(_tensors(tmp_path), _tensors(cases.FOLDER / case))
  assert cases.load(tmp_path).config == model.config


def test_other_families_want_their_directory(tmp_path):
  for case in ('gemma2.narrow', 'olmo2.narrow', 'mistral.narrow'):
    model = cases.load(cases.FOLDER / case)
    with pytest.raises(ValueError, match='pass source=.* to export'):
      saving.export(tmp_path, model.params, model.config)


class _Counting(loading.Tensors):
  """Tensors that note how many numbers they were asked for."""

  def __init__(self, directory):
    super().__init__(directory)
    self.pieces = {}

  def read(self, name, index):
    piece = super().read(name, index)
    self.pieces.setdefault(name, []).append(piece.size)
    return piece


def read_by_eight(case, mesh) -> str:
  """What a mesh of eight devices read; for a process of its own.

  Returns:
    The share of the whole that the largest piece of a matrix was, and how many
    numbers of matrices were read for each that they hold.
  """
  assert jax.device_count() == 8
  folder, made = cases.FOLDER / case, []
  whole = cases.load(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      loading, 'Tensors', lambda path: made.append(_Counting(path)) or made[0]
    )
    placed = cases.load(folder, mesh=mesh)
  jax.tree.map(np.testing.assert_array_equal, placed.params, whole.params)
  assert any(not x.is_fully_replicated for x in jax.tree.leaves(placed.params))
  sizes = {name: x.size for name, x in _tensors(folder).items() if x.ndim > 1}
  pieces = {name: made[0].pieces[name] for name in sizes}
  largest = max(max(pieces[name]) / size for name, size in sizes.items())
  read = sum(sum(pieces[name]) for name in sizes) / sum(sizes.values())
  return f'{largest} {read}'


@pytest.mark.parametrize('mesh', ['fsdp:8', 'fsdp:4,tensor:2'])
def test_eight_devices_read_their_pieces(mesh):
  """Every number once, and never more than an eighth of a matrix at a time."""
  found = small_world.in_process(
    f"pretrained_files_test.read_by_eight('phi3_long.narrow', {mesh!r})",
    JAX_NUM_CPU_DEVICES='8',
  )
  largest, read = map(float, found.split())
  assert math.isclose(read, 1.0)
  assert largest <= 1 / 8
