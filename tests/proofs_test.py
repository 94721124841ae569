"""The kernel of proofs: sound, by truth tables; its rules by hand."""

import itertools
import random

import hypothesis
from hypothesis import strategies
import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import proofs

# A text, and the same as an expression of Python.
_LEAVES = strategies.sampled_from(
  [('p', 'p'), ('q', 'q'), ('r', 'r'), ('0', 'False')]
)


def _joined(parts):
  (a, x), kind, (b, y) = parts
  python = {'&': f'({x} and {y})', '|': f'({x} or {y})'}
  return f'({a}{kind}{b})', python.get(kind, f'((not {x}) or {y})')


PROPOSITIONS = strategies.recursive(
  _LEAVES,
  lambda inner: strategies.one_of(
    inner.map(lambda a: (f'~{a[0]}', f'(not {a[1]})')),
    strategies.tuples(inner, strategies.sampled_from('&|>'), inner).map(
      _joined
    ),
  ),
  max_leaves=6,
)


def _always(python):
  """Whether an expression is true whatever p, q and r are."""
  return all(
    eval(python, {}, dict(zip('pqr', values)))
    for values in itertools.product([False, True], repeat=3)
  )


@hypothesis.given(PROPOSITIONS)
@hypothesis.settings(max_examples=100, deadline=None)
def test_texts(given):
  text, python = given
  # (A>0) is ~A.
  assert str(proofs.read(text)) == text or '>0)' in text
  assert proofs.read(str(proofs.read(text))) == proofs.read(text)
  for true in (frozenset(), frozenset('p'), frozenset('qr'), frozenset('pqr')):
    world = {name: name in true for name in 'pqr'}
    assert proofs.holds(proofs.read(text), true) == eval(python, {}, world)


@hypothesis.given(PROPOSITIONS, strategies.integers(0, 2**32))
@hypothesis.settings(max_examples=150, deadline=None)
def test_what_is_proved_is_true(given, seed):
  """By tactics at random, of which many fit."""
  text, python = given
  rng = random.Random(seed)
  for _ in range(5):
    goals = (proofs.Goal((), proofs.read(text)),)
    for _ in range(30):
      fitting = proofs.possible(goals)
      if not fitting:
        break
      tactic, after = rng.choice(fitting)
      assert proofs.apply(goals, tactic) == after
      goals = after
    if not goals:
      assert _always(python), text


@pytest.mark.parametrize(
  'theorem, proof',
  [
    ('(p>p)', 'intro, exact h1'),
    ('((p&q)>(q&p))', 'intro, cases h1, split, exact h2, exact h1'),
    ('((p|q)>(q|p))', 'intro, cases h1, right, exact h1, left, exact h1'),
    ('(p>~~p)', 'intro, intro, apply h2, exact h1'),
    ('(0>q)', 'intro, cases h1'),
    ('(~p>(p>q))', 'intro, intro, exfalso, apply h1, exact h2'),
    ('~~(p|~p)', 'intro, apply h1, right, intro, apply h1, left, exact h2'),
  ],
)
def test_proofs_by_hand(theorem, proof):
  goals = (proofs.Goal((), proofs.read(theorem)),)
  for tactic in proof.split(', '):
    assert goals
    goals = proofs.apply(goals, tactic)
  assert goals == ()
  goals = (proofs.Goal((), proofs.read(theorem)),)
  assert len(proofs.prove(goals)) == len(proof.split(', '))


@pytest.mark.parametrize('claim', ['p', '(p|~p)', '(~~p>p)', '(((p>q)>p)>p)'])
def test_there_is_no_proof_without_a_choice(claim):
  """The last three are true, but not by these rules."""
  assert proofs.prove((proofs.Goal((), proofs.read(claim)),), nodes=300) is None


@pytest.mark.parametrize(
  'text, tactic, says',
  [
    ('p', 'intro', 'intro wants A>B'),
    ('(p&q)', 'left', 'left wants A|B'),
    ('(p|q)', 'split', 'split wants A&B'),
    ('p', 'exact h1', 'there is no h1'),
    ('p', 'exact', 'exact wants h'),
    ('p', 'exfalso h1', 'exfalso takes no h'),
    ('p', 'sorry', 'a tactic is intro split'),
    ('p', 'exact h0', 'there is no h0'),
    ('p', 'apply h1; exact h1', 'a tactic is'),
  ],
)
def test_what_does_not_fit(text, tactic, says):
  goals = (proofs.Goal((), proofs.read(text)),)
  with pytest.raises(proofs.WrongTactic, match=says.replace('|', r'\|')):
    proofs.apply(goals, tactic)


def test_hypotheses_that_do_not_fit():
  known = tuple(map(proofs.read, ['q', '(q>r)', '(p>q)']))
  goals = (proofs.Goal(known, proofs.read('p')),)
  for tactic, says in [
    ('exact h1', 'h1 is not the goal'),
    ('apply h1', 'apply wants A>B'),
    ('apply h2', 'h2 does not end in the goal'),
    ('cases h1', 'cases wants'),
  ]:
    with pytest.raises(proofs.WrongTactic, match=says):
      proofs.apply(goals, tactic)


def test_proofs_do_not_grow_without_end():
  claim = proofs.read('~~p')
  goals = (proofs.Goal((claim,) * 12, claim),)
  with pytest.raises(proofs.WrongTactic, match='too many hypotheses'):
    proofs.apply(goals, 'intro')
  with pytest.raises(ValueError, match='A proposition is'):
    proofs.read('~' * 500 + 'p')


@pytest.mark.parametrize('text', ['', 'x', '(p&q', 'p&q', '(p&q))', '~', '(p)'])
def test_what_is_no_proposition(text):
  with pytest.raises(ValueError, match='A proposition is an atom'):
    proofs.read(text)


def test_theorems_alike_are_in_one_split():
  assert proofs.shape(proofs.read('(q>(r>q))')) == '(p>(q>p))'
  shapes = {
    split: {proofs.shape(proofs.read(t.prompt)) for t in proofs.tasks(split)}
    for split in ('validation', 'test')
  }
  assert len(shapes['test']) == proofs.SIZES['test']
  assert not shapes['test'] & shapes['validation']


def test_the_world_shows_goals():
  environment = environments.load('proofs', error_price=0.5)
  begin = environment.reset(types.Task(0, '((p&q)>(q&p))'), 0)
  state, said = begin.state, []
  for tactic in ('intro', 'split', 'exact h1', 'cases h1', 'exact h2'):
    after = environment.step(state, f'<tool>{tactic}</tool>', 0)
    state = after.state
    said.append((after.observation.text, dict(after.reward)))
  assert said == [
    ('h1 (p&q) |- (q&p)', {}),
    ('h1 (p&q) |- q and 1 more', {}),
    ('error: h1 is not the goal', {'auxiliary': -0.5}),
    ('h1 p, h2 q |- q and 1 more', {}),
    ('h1 (p&q) |- p', {}),
  ]
  answer = environment.step(state, '<answer>yes</answer>', 0)
  assert 'no answer' in answer.observation.text and not answer.terminated
