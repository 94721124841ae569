"""Numbers of an independent float64 reference, and what agrees with them.

A file `fixtures/<topic>.json` holds, per case, the name of the function, the
inputs, the settings, and the outputs with the exact gradient of a loss.
"""

from collections.abc import Callable, Collection, Mapping
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_FOLDER = pathlib.Path(__file__).parent / 'fixtures'
_TOLERANCES = ((np.float32, 2e-5), (np.float64, 1e-9))
_SPREAD_TOLERANCE = 1e-4  # In float32, of what is divided by a spread.
_INTEGERS = ('turn_ids', 'group_ids', 'anchor_ids')
_MASKS = ('mask', 'turn_mask', 'step_mask', 'valid')

Case = dict[str, Any]


class Agreement:
  """The cases of one file, run by functions of the package."""

  def __init__(
    self,
    topic: str,
    run: Mapping[str, Callable[..., dict[str, Any]]],
    *,
    spread: Collection[str] = (),
    unused: Collection[str] = (),
    integers: Collection[str] = (),
    masks: Collection[str] = (),
  ):
    """Reads the cases.

    Args:
      topic: the file's name without its ending.
      run: by name of a function of the reference, what finds the same outputs
        from inputs by name as arrays, and settings by name.
      spread: functions whose results are divided by a standard deviation,
        which amplifies the rounding of their input.
      unused: names of outputs that the package does not compute.
      integers: names of inputs that are integers, beyond the common ones.
      masks: names of inputs that are masks, beyond the common ones.
    """
    path = _FOLDER / f'{topic}.json'
    self.cases: list[Case] = json.loads(path.read_text())['cases']
    self._run = run
    self._spread = frozenset(spread)
    self._unused = frozenset(unused)
    self._integers = frozenset(integers) | frozenset(_INTEGERS)
    self._masks = frozenset(masks) | frozenset(_MASKS)
    self._found: dict[tuple[str, type], dict[str, Any]] = {}

  def check(self, case: Case) -> None:
    """Asserts that a case comes out as it should, in both precisions."""
    for dtype, tolerance in _TOLERANCES:
      if dtype == np.float32 and case['fn'] in self._spread:
        tolerance = _SPREAD_TOLERANCE
      out = self._results(case['fn'], dtype)[case['id']]
      assert case['expected'].keys() <= out.keys() | self._unused
      for name in case['expected'].keys() - self._unused:
        want = np.asarray(case['expected'][name])
        whole = np.issubdtype(out[name].dtype, np.integer)
        assert out[name].dtype in (dtype, bool) or whole, name
        assert out[name].shape == want.shape, name
        np.testing.assert_allclose(
          out[name],
          want,
          rtol=tolerance,
          atol=tolerance,
          err_msg=f'{name} in {np.dtype(dtype)}',
        )

  def _results(self, fn: str, dtype: type) -> dict[str, Any]:
    """The outputs of every case of a function, by id. One compilation."""
    if (fn, dtype) not in self._found:
      cases = {case['id']: case for case in self.cases if case['fn'] == fn}

      def run(inputs):
        return {
          name: self._run[fn](**inputs[name], **case['params'])
          for name, case in cases.items()
        }

      with jax.enable_x64(dtype == np.float64):
        arrays = {
          name: {k: self._array(k, v, dtype) for k, v in case['inputs'].items()}
          for name, case in cases.items()
        }
        self._found[fn, dtype] = jax.device_get(jax.jit(run)(arrays))
    return self._found[fn, dtype]

  def _array(self, name: str, value: Any, dtype: type) -> jax.Array:
    """An input, in the type that the package wants."""
    if name in self._masks:
      return jnp.asarray(value, bool)
    return jnp.asarray(value, np.int32 if name in self._integers else dtype)
