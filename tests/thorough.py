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
  'tests/quickstart_test.py::test_the_same_command_goes_on_and_other',
  'tests/quickstart_test.py::test_inspect_prints_episodes_and_writes',
  'tests/reward_model_test.py::test_the_model_learns_beside_a_policy',
  'tests/experts_losses_test.py::test_a_step_is_the_same_for_any_microbatches',
  'tests/swapping_test.py::test_a_run_is_repeated_from_its_schedule',
  'tests/prefix_tree_train_test.py::test_a_run_learns_the_same',
  'tests/train_test.py::test_prepare_sees_the_whole_batch',
  'tests/evaluate_script_test.py::test_a_policy_scores_the_same_with_other',
  'tests/heads_test.py::test_the_role_of_a_token_chooses_its_value_head',
  'tests/experts_test.py::test_adapters_of_experts[int8]',
  'tests/lora_test.py::test_adapters_are_a_product_of_low_rank_beside',
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
