"""Which cases of long tests always run, and which only in `make thorough`."""

from collections.abc import Iterable
import os
from typing import Any

import pytest

ASKED = bool(os.environ.get('THOROUGH'))

# Long tests beside which shorter ones look at the same: beginnings of their
# names. They too run in `make thorough` only.
LONG = (
  'tests/carry_test.py::test_the_loop_carries_it_and_checkpoints_keep_it',
  'tests/heads_test.py::test_a_run_goes_on_to_the_bit_and_its_reference',
  'tests/lora_test.py::test_a_run_goes_on_to_the_bit_and_keeps_its_base_once',
  'tests/policies_test.py::test_a_run_trains_its_adapters_alone',
  'tests/quickstart_test.py::test_a_wrong_flag_is_one_clear_line[flags1',
  'tests/quickstart_test.py::test_a_wrong_flag_is_one_clear_line[flags3',
  'tests/quickstart_test.py::test_a_wrong_flag_is_one_clear_line[flags5',
  'tests/quickstart_test.py::test_a_wrong_flag_is_one_clear_line[flags7',
  'tests/train_loop_test.py::test_every_recipe_trains[dapo]',
  'tests/train_loop_test.py::test_every_recipe_trains[turn_ppo]',
  'tests/train_loop_test.py::test_every_recipe_trains[rloo]',
  'tests/train_loop_test.py::test_what_is_not_finite_stops_the_run[gradient]',
  'tests/user_script_test.py::test_fifteen_lines_train',
  'tests/vision_test.py::test_patches_tokens_and_logits',
  'tests/experts_losses_test.py::test_a_record_here_and_none_there_is_one',
  'tests/pages_demonstrations_test.py::test_spin_is_that_of_the_fixtures',
  'tests/pages_probes_test.py::test_it_learns_from_action_tokens_alone[gkd]',
  'tests/sampling_test.py::test_the_capacity_changes_no_bit',
  'tests/resume_test.py::test_a_finished_run_has_nothing_left_to_do',
  'tests/vocabulary_test.py::test_chunks_say_what_the_whole_says[84]',
)


def some(cases: Iterable[Any], every: int, first: int = 0) -> list[Any]:
  """All cases for `parametrize`; but every n-th is marked `thorough`.

  Args:
    cases: to run.
    every: of how many one always runs.
    first: which of them.
  """
  return [
    case
    if i % every == first
    else pytest.param(case, marks=pytest.mark.thorough)
    for i, case in enumerate(cases)
  ]
