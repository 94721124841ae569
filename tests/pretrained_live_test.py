"""Ours against transformers itself, where installed: other shapes, exports.

What the fixtures hold is computed anew, transformers reads what we write, and
PEFT our adapters. `make parity` installs what this wants and runs it.
"""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.models import transformer
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from tests import chat_templates
from tests import pretrained_cases as cases

_WANTED = 'wants torch, transformers and peft, the extra `parity`: make parity'
torch = pytest.importorskip('torch', reason=_WANTED)
transformers = pytest.importorskip('transformers', reason=_WANTED)
peft = pytest.importorskip('peft', reason=_WANTED)
maker = importlib.import_module('tests.make_pretrained_fixtures')

# Neither width nor depth nor vocabulary of the fixtures.
SHAPES = (
  dict(
    vocab_size=52,
    hidden_size=24,
    intermediate_size=20,
    num_hidden_layers=1,
    num_attention_heads=6,
    num_key_value_heads=3,
    tie_word_embeddings=False,
  ),
  dict(
    vocab_size=36,
    hidden_size=8,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    tie_word_embeddings=True,
  ),
)


def _settings(family, number):
  """A family's settings at one of SHAPES; narrow ones are of two layers."""
  kind, changes = maker.FAMILIES[family]
  settings = SHAPES[number] | changes['narrow']
  if 'num_key_value_heads' in changes['narrow']:
    settings['num_key_value_heads'] = settings['num_attention_heads']
  if 'layer_types' in settings:
    layers = settings['num_hidden_layers']
    settings['layer_types'] = settings['layer_types'][-layers:]
  return kind, settings


@pytest.mark.parametrize('number', range(len(SHAPES)))
@pytest.mark.parametrize('family', maker.FAMILIES)
def test_logits_and_exports(family, number, tmp_path):
  config = maker.configuration(*_settings(family, number))
  model = maker.build(config, maker.fresh(config, seed=100 + number))
  model.save_pretrained(tmp_path / 'theirs')
  rng = np.random.default_rng(number)
  rows = [rng.integers(3, config.vocab_size, n) for n in (33, 21)]
  with torch.no_grad():
    wanted = maker.logits(model, rows, left=bool(number)).numpy()

  ours = cases.load(tmp_path / 'theirs')
  batch = cases.padded(rows, left=bool(number))
  found = cases.packed_logits(ours, batch)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)

  # Changed, out, and into transformers.
  params = ours.params | {
    'final_norm': {'scale': ours.params['final_norm']['scale'] * 1.25}
  }
  saving.export(
    tmp_path / 'ours', params, ours.config, source=tmp_path / 'theirs'
  )
  again, report = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'ours',
    attn_implementation='eager',
    output_loading_info=True,
  )
  assert not any(report.values())
  with torch.no_grad():
    theirs = maker.logits(again.eval(), rows, left=False).numpy()
  found = cases.packed_logits(cases.Model(ours.config, params), batch)
  np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-4)
  assert np.max(np.abs(theirs - wanted)) > 1e-2


def test_half_precision_is_half_there_too(tmp_path):
  config = maker.configuration(*_settings('qwen3', 1))
  model = maker.build(config, maker.fresh(config, seed=7)).bfloat16()
  model.save_pretrained(tmp_path / 'theirs')
  ours = cases.load(tmp_path / 'theirs', 'bfloat16')
  saving.export(
    tmp_path / 'ours', ours.params, ours.config, source=tmp_path / 'theirs'
  )
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'ours')
  assert again.dtype == torch.bfloat16
  for name, value in model.state_dict().items():
    assert torch.equal(value, again.state_dict()[name]), name


def test_written_without_a_source(tmp_path):
  """config.json is then ours, of Llama or Qwen3."""
  for family in ('smollm2', 'qwen3'):
    ours = cases.load(cases.FOLDER / f'{family}.narrow')
    saving.export(tmp_path / family, ours.params, ours.config)
    again = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / family, attn_implementation='eager'
    )
    rows = [np.arange(3, 33)]
    with torch.no_grad():
      wanted = maker.logits(again, rows, left=False).numpy()
    found = cases.packed_logits(ours, cases.padded(rows, left=False))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


ADAPTERS = config_lib.Lora(
  rank=3, alpha=7.0, targets=('query', 'value', 'output')
)


def _adapted(case, adapters):
  """A model of the fixtures with adapters that do something."""
  base = cases.load(cases.FOLDER / case)
  config = dataclasses.replace(base.config, lora=adapters)
  fresh = jax.jit(functools.partial(transformer.init, config))
  made = fresh(jax.random.key(0))['blocks']
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype)
  beside = {k: draw(x) for k, x in made.items() if '_lora_' in k}
  assert len(beside) == 2 * len(adapters.targets)
  params = {**base.params, 'blocks': base.params['blocks'] | beside}
  return cases.Model(config, params)


@pytest.mark.parametrize(
  'case', ['smollm2.narrow', 'gemma2.deep', 'mixtral.narrow']
)
@pytest.mark.parametrize('stabilised', [False, True])
def test_peft_loads_our_adapters_and_we_load_its(case, stabilised, tmp_path):
  adapters = dataclasses.replace(ADAPTERS, rank_stabilised=stabilised)
  if case != 'mixtral.narrow':
    adapters = dataclasses.replace(adapters, targets=('key', 'up', 'down'))
  ours = _adapted(case, adapters)
  folder = cases.FOLDER / case
  kind = loading.read_json(folder / 'config.json')['model_type']
  settings = dict(model_type=kind, base=str(folder))
  pretrained.export_adapter(tmp_path, ours.params, ours.config, **settings)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    folder, attn_implementation='eager'
  )
  rows = [np.arange(3, 33), np.arange(30, 12, -1)]
  with torch.no_grad():
    plain = maker.logits(theirs.eval(), rows, left=False).numpy()
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    wanted = maker.logits(adapted, rows, left=False).numpy()
  assert np.max(np.abs(wanted - plain)) > 1e-2
  found = cases.packed_logits(ours, cases.padded(rows, left=False))
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)

  adapted.save_pretrained(tmp_path / 'theirs')
  assert pretrained.read_lora(tmp_path / 'theirs', kind) == adapters
  blank = jax.tree.map(jnp.zeros_like, ours.params)
  again = pretrained.load_adapter(
    tmp_path / 'theirs', blank, ours.config, model_type=kind
  )
  for name, leaf in again['blocks'].items():
    if '_lora_' in name:
      np.testing.assert_array_equal(leaf, ours.params['blocks'][name])


def test_the_fixtures_are_what_the_script_makes():
  """Their weights at least, by this version of torch."""
  case = 'gemma2.narrow'
  kind, changes = maker.FAMILIES['gemma2']
  config = maker.configuration(kind, maker.SHAPES['narrow'] | changes['narrow'])
  seed = maker.SEEDS.index('gemma2')
  model = maker.build(config, maker.fresh(config, seed))
  stored = safetensors.numpy.load_file(
    cases.FOLDER / case / 'model.safetensors'
  )
  found = model.state_dict()
  for name, value in stored.items():
    np.testing.assert_array_equal(found[name].numpy(), value)


TOOLS = [{'type': 'function', 'function': {'name': 'add', 'description': 'é'}}]


# That of Llama 3 names the day, which with us is always the same.
@pytest.mark.parametrize(
  'name', sorted(set(chat_templates.TEMPLATES) - {'llama3'})
)
def test_prompts_are_those_of_transformers(name, tmp_path):
  chat_templates.write(tmp_path, name)
  ours = tokenizer_lib.TextTokenizer(tmp_path)
  theirs = transformers.PreTrainedTokenizerFast(
    tokenizer_file=str(tmp_path / 'tokenizer.json'),
    eos_token='<|endoftext|>',
    bos_token='<bos>' if name == 'gemma' else None,
    chat_template=chat_templates.TEMPLATES[name],
  )
  messages = [
    {'role': 'user', 'content': ' What is 2+2? 計算 🧮 '},
    {'role': 'assistant', 'content': '<think>\nHm.\n</think>\n\nFour'},
    {'role': 'user', 'content': 'And 3 + 3?\n'},
  ]
  for number, tools in ((1, None), (3, None), (1, TOOLS)):
    wanted = theirs.apply_chat_template(
      messages[:number],
      tools=tools,
      add_generation_prompt=True,
      return_dict=False,
    )
    assert ours.prompt(messages[:number], tools or ()) == wanted
