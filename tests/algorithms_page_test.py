"""docs/algorithms.md is what its script writes, and leaves nothing out."""

import re

from docs import algorithm_names
from docs import make_algorithms

CURRENT = 'run python docs/make_algorithms.py'


def test_the_page_is_current():
  assert make_algorithms.OUT.read_text() == make_algorithms.render(), CURRENT


def test_every_function_is_listed_once():
  text = make_algorithms.OUT.read_text()
  listed = re.findall(r'^\| \[`([\w.]+)`\]', text, re.MULTILINE)
  wanted = [f.name for f in make_algorithms.functions()]
  assert sorted(listed) == wanted and len(set(listed)) == len(listed)
  for function in make_algorithms.functions():
    assert function.summary, function.name
  for module in make_algorithms.MODULES:
    short = module.__name__.rpartition('.')[2]
    public = {n for n in getattr(module, '__all__', ()) if n[0].islower()}
    assert {f'{short}.{n}' for n in public} <= set(wanted)


def test_every_page_is_linked():
  text = make_algorithms.OUT.read_text()
  for page in make_algorithms.pages():
    assert f'[{page.name}](../{page.file})' in text.partition('## Names')[2]


def test_links_lead_somewhere():
  text = make_algorithms.OUT.read_text()
  for link in set(re.findall(r'\]\(\.\./([^)]+)\)', text)):
    assert (make_algorithms.ROOT / link).is_file(), link


def test_uses_are_found_through_what_recipes_share():
  uses = make_algorithms.Uses()
  direct = uses.of('experiments.gspo.recipe')
  assert 'losses.sequence_ratio' in direct, 'in a function of its own'
  assert 'losses.clipped_surrogate' in direct, 'through parts.clipped'
  assert 'advantages.standardise' in direct, 'through the recipe it starts from'
  assert 'advantages.gae' not in direct
  step = uses.of('experiments.step_dpo.recipe')
  assert 'preferences.logistic' in step, "through another page's table"
  assert 'preferences.win_rates' not in step
  simpo = uses.of('experiments.simpo.recipe')
  assert 'preferences.log_odds' in simpo, 'through a table with a type'


def test_functions_named_in_compositions_exist():
  known = {f.name.partition('.')[2] for f in make_algorithms.functions()}
  known |= {'whiten', 'recipe.objective', 'recipe.keep_mixed'}
  states = {algorithm_names.PART, algorithm_names.LATER}
  states |= {algorithm_names.OMITTED, ''}
  for rows in algorithm_names.NAMES.values():
    for name, source, page, composition in rows:
      assert name and source and composition
      assert page in states or page.isidentifier()
      for text in re.findall(r'`([^`]+)`', composition):
        assert text.partition('(')[0] in known, (name, text)


def test_headings_go_on_over_lines():
  text = 'First line.\n\nPaper: one\n  two.\nResult: not run.\n'
  found = make_algorithms.headings(text)
  assert found == {'Paper': 'one two.', 'Result': 'not run.'}
  page = make_algorithms.Page('x', 'x.py', found)
  assert not page.tested
  assert make_algorithms.Page('x', 'x.py', {'Result': '+3 points'}).tested
