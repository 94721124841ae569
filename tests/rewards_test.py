"""Scorers of answers."""

import pytest

from agentic_jax.rewards import answers


@pytest.mark.parametrize(
  'answer, truth, score',
  [
    ('14', '14', 1),
    (' 14\n', '14', 1),
    ('14.0', '14', 1),
    ('1,000', '1000', 1),
    ('1/2', '0.5', 1),
    ('1e3', '1000', 1),
    ('-3', '-3', 1),
    ('0.3', '3/10', 1),
    ('15', '14', 0),
    ('14 15', '14', 0),
    ('7*2', '14', 0),
    ('', '14', 0),
    ('.', '0', 0),
    ('1/0', '14', 0),
    ('inf', '14', 0),
    ('1e999', '14', 0),
    ('१४', '14', 0),
    ('9' * 999, '14', 0),
    ('Paris', 'paris', 1),
    ('', '', 0),
  ],
)
def test_numeric_answers(answer, truth, score):
  assert answers.numeric(answer, truth) == score


def test_numeric_answers_with_a_tolerance():
  assert answers.numeric('3.14', '3.14159', tolerance=0.01) == 1.0
  assert answers.numeric('3.14', '3.14159', tolerance=1e-6) == 0.0


def test_exact_answers():
  assert answers.exact('New  York', 'new york') == 1.0
  assert answers.exact('', '') == 0.0
