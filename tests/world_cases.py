"""What the conformance suite holds every environment to."""

import importlib.util

import pytest

from agentic_jax import environments

# The package of an extra that a world cannot do without.
NEEDS = {'toolbox': 'pydantic'}

# What tests/on_device_test.py holds to a twin that is walked by default.
_LONG = ('mazes_on_device',)

# Every environment as it comes, and with settings that change its nature.
CASES = [(name, {}) for name in environments.ENVIRONMENTS] + [
  ('blocks', {'observability': 'partial', 'spare': 0}),
  ('corridor', {'slip': 0.25, 'max_turns': 64}),
  ('corridor', {'observability': 'partial'}),
  ('corridor_on_device', {'slip': 0.25, 'max_turns': 64}),
  (
    'dialog_mem',
    {'observability': 'full', 'bank_reward': 0.1, 'operation_price': 0.01},
  ),
  ('errands', {'observability': 'full', 'goal_reward': 0.25}),
  ('errands', {'plans': False, 'length': 9}),
  (
    'forms',
    {'observability': 'full', 'coordinates': True, 'error_price': 0.01},
  ),
  (
    'house',
    {'observability': 'full', 'error_price': 0.01, 'goal_reward': 0.2},
  ),
  (
    'kb_search',
    {'observability': 'full', 'noise': 8, 'top': 1, 'idle_price': 0.01},
  ),
  ('long_doc', {'observability': 'full', 'chunks': 16}),
  ('mazes', {'observability': 'partial', 'steps': 8, 'step_price': 0.01}),
  ('mazes_on_device', {'observability': 'partial'}),
  (
    'mini_code',
    {'observability': 'partial', 'process_reward': 0.2, 'compile_price': 0.01},
  ),
  (
    'multi_obj',
    {'observability': 'full', 'objectives': 8, 'spare': 30, 'hint': False},
  ),
  ('proofs', {'observability': 'partial', 'error_price': 0.01}),
  ('tables', {'query_price': 0.02, 'claim_price': 0.5}),
  ('terminal', {'observability': 'full', 'error_price': 0.01}),
  ('tool_math', {'tool': False}),
  ('tool_math', {'max_operations': 2, 'call_price': 0.0}),
  ('toolbox', {'max_characters': 40, 'call_price': 0.0, 'max_turns': 6}),
]
# Further settings, in `make thorough` only.
LONG_CASES = [
  (
    'coop_search',
    {'observability': 'full', 'message_price': 0.01, 'word_price': 0.01},
  ),
  (
    'negotiate',
    {
      'observability': 'full',
      'stakes': 'joint',
      'care': 0.1,
      'turn_price': 0.01,
    },
  ),
  (
    'pixel_grid',
    {
      'observability': 'full',
      'image_size': 16,
      'crop_price': 0.01,
      'process_reward': 0.1,
    },
  ),
  (
    'workbench',
    {'observability': 'full', 'process_reward': 0.2, 'error_price': 0.01},
  ),
]
# What a policy may try that has not understood the task.
CHEATERS = {
  'blocks': [
    '<answer>{prompt}</answer>',
    '<tool>a -</tool>',
    '<tool>b a</tool>',
    '<tool>{prompt}</tool>',
  ],
  'coop_search': [
    '<answer>{prompt}</answer>',
    '<answer>pal</answer>',
    '<tool>say {prompt}</tool>',
    '<tool>find {prompt}</tool>',
  ],
  'corridor': [
    '<answer>right</answer>',
    '<tool>goal</tool>',
    '<tool>right right right</tool>',
    '<result>7</result>',
  ],
  'dialog_mem': [
    '<answer>none</answer>',
    '<memory>noop</memory>',
    '<memory>add {prompt}</memory>',
    '<memory>delete 1</memory>',
    '<tool>{prompt}</tool>',
  ],
  'echo': [
    '<answer></answer>',
    '<answer>abc abd abe</answer>',
    '<answer>echo</answer>',
    '<result>right</result>',
  ],
  'errands': [
    '<answer>{prompt}</answer>',
    '<tool>lr</tool>',
    '<switch>y</switch><plan>{prompt}</plan><answer>1</answer>',
    '<switch>n</switch><plan>1</plan><tool>r</tool>',
    '<result>7</result>',
  ],
  'forms': [
    '<answer>{prompt}</answer>',
    '<tool>click 1</tool>',
    '<tool>click 3</tool>',
    '<tool>press send</tool>',
    '<tool>type 1 {prompt}</tool>',
  ],
  'house': [
    '<answer>{prompt}</answer>',
    '<tool>put</tool>',
    '<tool>look</tool>',
    '<tool>take mug</tool>',
    '<tool>go shelf</tool>',
  ],
  'kb_search': [
    '<answer>{prompt}</answer>',
    '<answer>1</answer>',
    '<answer></answer>',
    '<search>{prompt}</search>',
    '<search>pal</search>',
    '<result>1</result>',
  ],
  'long_doc': [
    '<answer>{prompt}</answer>',
    '<answer>7</answer>',
    '<answer>0 1 2 3 4 5 6 7 8 9</answer>',
    '<memory>{prompt}</memory>',
    '<tool>{prompt}</tool>',
  ],
  'mazes': [
    '<answer>{prompt}</answer>',
    '<tool>$</tool>',
    '<tool>r</tool>',
    '<tool>ddddddddrrrrrrrrrr</tool>',
  ],
  'mini_code': [
    '<answer>{prompt}</answer>',
    '<answer></answer>',
    '<answer>x</answer>',
    '<tool>x 1 +</tool>',
    '<tool>{prompt}</tool>',
  ],
  'multi_obj': [
    '<answer>7 7</answer>',
    '<answer>7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7</answer>',
    '<answer>0 1 2 3 4 5 6 7 8 9</answer>',
    '<tool>{prompt}</tool>',
    '<answer>{prompt}</answer>',
  ],
  'negotiate': [
    '<answer>{prompt}</answer>',
    '<tool>accept</tool>',
    '<tool>walk</tool>',
    '<tool>offer 0 0 0</tool>',
    '<tool>offer {prompt}</tool>',
  ],
  'pixel_grid': [
    '<answer>{prompt}</answer>',
    '<answer>rows</answer>',
    '<answer>1</answer>',
    '<tool>crop 0 0</tool>',
    '<tool>{prompt}</tool>',
  ],
  'proofs': [
    '<answer>{prompt}</answer>',
    '<tool>exact h1</tool>',
    '<tool>sorry</tool>',
    '<tool>intro</tool>',
    '<tool>{prompt}</tool>',
  ],
  'tables': [
    '<answer>none</answer>',
    '<answer>1</answer>',
    '<tool>count</tool>',
    '<tool>{prompt}</tool>',
    '<answer>{prompt}</answer>',
  ],
  'terminal': [
    '<answer>done</answer>',
    '<answer>{prompt}</answer>',
    '<tool>{prompt}</tool>',
    '<tool>rm -r docs logs src data tmp work</tool>',
    '<tool>mv * docs</tool>',
  ],
  'tool_math': [
    '<answer></answer>',
    '<answer>0 1 2 3 4 5 6 7 8 9 10 11 12 13 14</answer>',
    '<answer>1</answer>',
    '<answer>{prompt}</answer>',
    '<answer>nan</answer>',
    '<result>1</result><answer>1</answer>',
  ],
  'toolbox': [
    '<answer>{prompt}</answer>',
    '<answer>0</answer>',
    '<tool_call>{"name": "list_files"}</tool_call>',
    '<tool_call>{"name": "find", "arguments": {"text": "o"}}</tool_call>',
    '<tool_call>{prompt}</tool_call>',
  ],
  'workbench': [
    '<answer>{prompt}</answer>',
    '<answer>7</answer>',
    '<tool>{prompt}</tool>',
    '<tool>write a.txt 7</tool>',
    '<memory>add a 7</memory>',
  ],
}
CHEATERS |= {
  name: CHEATERS[twin] for name, twin in environments.ON_DEVICE.items()
}


def params() -> list:
  """The cases, those that lack their extra marked to be skipped."""
  usual = [
    pytest.param(
      name,
      settings,
      marks=[
        pytest.mark.skipif(
          name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None,
          reason=f'{NEEDS.get(name)} is not installed',
        ),
        *([pytest.mark.thorough] if name in _LONG else []),
      ],
    )
    for name, settings in CASES
  ]
  return usual + [
    pytest.param(name, settings, marks=pytest.mark.thorough)
    for name, settings in LONG_CASES
  ]
