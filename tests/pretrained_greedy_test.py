"""The sampler says what `generate` of transformers says."""

import pytest

from tests import pretrained_cases as cases
from tests import thorough


@pytest.mark.parametrize('case', thorough.some(cases.CASES, 7, 1))
def test_greedy_continuations(case):
  wanted = cases.reference(case)
  prompts = cases.rows_of(wanted['prompts'], wanted['prompt_lengths'])
  number = wanted['greedy'].shape[1]
  assert number == 64
  found = cases.greedy(cases.load(cases.FOLDER / case), prompts, number)
  assert found == wanted['greedy'].tolist()
