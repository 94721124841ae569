"""Adapters of another run are taken at the scale they were trained with."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from experiments import distill
from experiments import policies

HELD = config_lib.Lora(rank=4, alpha=8.0, targets=('query', 'up'))


def _run(tmp_path, monkeypatch, held=HELD):
  """The directory of a run, whose parameters are `params`."""
  config = sizes.load('toy', 40, lora=held)
  described = {'model': dataclasses.asdict(config) | {'name': 'toy'}}
  (tmp_path / 'config.json').write_text(json.dumps(described))
  shapes = jax.eval_shape(
    lambda key: transformer.init(config, key), jax.random.key(0)
  )
  params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
  monkeypatch.setattr(train, 'load_params', lambda path: params)
  return params


def _config(**changes):
  asked = dataclasses.replace(HELD, **changes)
  return sizes.load('toy', 40, lora=asked)


OTHERS = [
  (
    dict(alpha=4.0),
    r'trained at the scale 2, and this policy takes them times 1: alpha is '
    r'4.0, and was 8.0. Give --model .*\?rank=4&alpha=8\.$',
  ),
  (dict(rank_stabilised=True), 'times 4: rank_stabilised is True, and was Fal'),
  (dict(rank=8), 'times 1: rank is 8, and was 4'),
]
# The same scale is the same policy: 4 / 4^(1/2) = 8 / 4. Further targets are
# fresh.
SAME = [
  {},
  dict(targets=('up', 'query', 'down')),
  dict(alpha=4.0, rank_stabilised=True),
]


@pytest.mark.parametrize('changes, message', OTHERS)
def test_init_from_compares(tmp_path, monkeypatch, changes, message):
  _run(tmp_path, monkeypatch)
  with pytest.raises(ValueError, match=f'--init_from={tmp_path} .*{message}'):
    policies.of_run(str(tmp_path), _config(**changes))


@pytest.mark.parametrize('changes', SAME)
def test_init_from_takes_what_is_the_same_policy(
  tmp_path, monkeypatch, changes
):
  params = _run(tmp_path, monkeypatch)
  assert policies.of_run(str(tmp_path), _config(**changes)) is params


def test_init_from_takes_what_has_no_adapters(tmp_path, monkeypatch):
  params = _run(tmp_path, monkeypatch, held=None)
  assert train.lora_of(tmp_path) is None
  assert policies.of_run(str(tmp_path), _config(alpha=3.0)) is params
  (tmp_path / 'config.json').unlink()
  assert policies.of_run(str(tmp_path), _config(alpha=3.0)) is params


def test_rank_stabilised_ones_are_told_how_to_be_had():
  held = dataclasses.replace(HELD, rank_stabilised=True)
  with pytest.raises(ValueError, match='alpha=8&rank_stabilised=True'):
    lora.refuse_rescaled(HELD, held, 'x')


@pytest.mark.parametrize('changes, message', OTHERS)
def test_a_teacher_is_compared(tmp_path, monkeypatch, changes, message):
  _run(tmp_path, monkeypatch)
  made = distill.recipe(teacher=str(tmp_path), outcome_weight=0.0)
  with pytest.raises(ValueError, match=f'of the teacher .*{message}'):
    train.place_teacher(_config(**changes), made, sharding.make_mesh())


@pytest.mark.parametrize('changes', SAME[:2])
def test_a_teacher_of_the_same_scale_is_taken(tmp_path, monkeypatch, changes):
  params = _run(tmp_path, monkeypatch)
  made = distill.recipe(teacher=str(tmp_path), outcome_weight=0.0)
  config = _config(**changes)
  placed = train.place_teacher(config, made, sharding.make_mesh())
  np.testing.assert_array_equal(
    placed['blocks']['query_lora_b'], params['blocks']['query_lora_b']
  )
  if 'targets' in changes:
    assert not placed['blocks']['down_lora_b'].any()


def test_without_a_teacher_there_is_nothing_to_compare():
  made = recipe_lib.grpo(group_size=2)
  assert made.teacher_adapters is None
  assert train.place_teacher(_config(), made, sharding.make_mesh()) is None
