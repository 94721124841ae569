"""What proofs make of runs: intervals, resuming, and what is judged."""

import json
import math

import pytest

from experiments import code_repair_proof
from experiments import gigpo_proof
from experiments import proving


def test_intervals_are_those_of_student():
  # A mean of 2, a deviation of 1, and 4.303 at two degrees of freedom.
  found = proving.interval([1.0, 2.0, 3.0])
  assert found.mean == 2.0
  assert found.half == pytest.approx(4.303 / 3**0.5)
  assert str(proving.interval([0.5, 0.5])) == '50.0 ± 0.0'
  assert math.isnan(proving.interval([1.0]).half)
  # What seeds share does not count.
  gap = proving.difference([0.3, 0.7, 0.9], [0.2, 0.6, 0.8])
  assert gap == pytest.approx((0.1, 0.0), abs=1e-12)
  assert f'{gap:+}' == '+10.0 ± 0.0'
  many = proving.interval([0.0, 1.0] * 50)
  assert many.half == pytest.approx(1.96 * 0.5025 / 10, rel=1e-3)


def test_what_was_run_is_not_run_again(tmp_path):
  asked = ['no_script.py', '--seed=1', f'--workdir={tmp_path}']
  command = ' '.join(['experiments/no_script.py', *asked[1:]])
  (tmp_path / 'summary.json').write_text(json.dumps({'command': command}))
  proving.run(asked)
  with pytest.raises(RuntimeError, match='no_script.py failed, with 2'):
    proving.run(['no_script.py', '--seed=2', f'--workdir={tmp_path}'])
  into = tmp_path / 'scores'
  with pytest.raises(RuntimeError, match='start the same command again'):
    proving.run([*asked, f'--into={into}'])


def _episode(answer, *actions, ended=True):
  return {
    'task': {'prompt': '0>1 1>4 2>7', 'answer': answer},
    'turns': [{'action': action} for action in actions],
    'terminated': ended,
  }


def test_repairs_and_cheats():
  right, by_heart = 'x3*1+', 'x0=1x1=47??'
  found = code_repair_proof.judge(
    [
      _episode(right, f'<tool>{right}</tool>', '<answer></answer>'),
      # Mended, after what is no program and after one that fails.
      _episode(right, '<tool>+</tool>', f'<answer>{right}</answer>'),
      _episode(right, '<tool>x</tool>', f'<answer>{right}</answer>'),
      # Right at first, and not in the end.
      _episode(right, f'<tool>{right}</tool>', '<answer>x</answer>'),
      _episode(right, f'<tool>{by_heart}</tool>', '<answer></answer>'),
      # Never submitted.
      _episode(right, f'<tool>{right}</tool>', ended=False),
      _episode(right, 'nothing', '<answer></answer>'),
      _episode(right, '<tool>x</tool>', '<answer>x2*</answer>'),
    ]
  )
  assert found == {
    'passes': 3 / 8,
    'first': 3 / 8,
    'repairs': 2 / 4,
    'failing': 4 / 8,
    'cheats': 1 / 8,
    'tries': 11 / 8,
  }
  assert code_repair_proof.cheater(20) == {'visible': 1.0, 'hidden': 0.0}


def test_recurrence():
  turns = lambda keys: [{'state_key': key} for key in keys]
  episodes = [
    # Beginnings do not count; b recurs in one episode, c in another one.
    {'step': 1, 'draw': 0, 'turns': turns('abbc')},
    {'step': 1, 'draw': 0, 'turns': turns('acd')},
    # Another group.
    {'step': 1, 'draw': 1, 'turns': turns('ad')},
  ]
  assert gigpo_proof.recurrence(episodes) == 4 / 6
  assert gigpo_proof.recurrence([]) == 0.0
