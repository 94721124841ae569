"""The directory of a run: what it was started with, whether it may go on."""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
import subprocess
from typing import Any

from agentic_jax import checkpoint
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora

# What may change between two starts of one run.
_FREE = ('command', 'commit', 'version', 'versions', 'attention')


def open_run(
  workdir: pathlib.Path, config: Mapping[str, Any], *, resume: bool = True
) -> None:
  """Makes the run directory, or checks that it holds the same run.

  Args:
    workdir: of the run.
    config: everything the run is started with, as JSON; becomes config.json.
    resume: whether a run that is there may be gone on with.

  Raises:
    ValueError: there is a run with other settings (the message names them), or
      one that must not be resumed.
  """
  path = workdir / 'config.json'
  config = json.loads(json.dumps(config))
  if path.exists() and _has_begun(workdir):
    if not resume:
      raise ValueError(
        f'{workdir} holds a run already, and --resume=never was given; choose '
        'another --workdir, or remove it first.'
      )
    before = json.loads(path.read_text())
    differ = _differences(before, config)
    if differ:
      raise ValueError(
        f'{workdir} holds a run with other settings: {"; ".join(differ)}. '
        'Choose another --workdir, give the old settings to go on, or remove '
        'the directory to start over.'
      )
  workdir.mkdir(parents=True, exist_ok=True)
  fresh = path.with_suffix('.json.new')
  fresh.write_text(json.dumps(config, indent=2) + '\n')
  os.replace(fresh, path)


def _has_begun(workdir: pathlib.Path) -> bool:
  """Whether anything was measured or saved: a failed start leaves nothing."""
  written = workdir / 'metrics.jsonl'
  saved = checkpoint.Checkpoints(workdir / 'checkpoints').steps()
  return bool(saved) or (written.exists() and written.stat().st_size > 0)


def digests(paths: Mapping[str, str]) -> dict[str, str]:
  """A digest of the content of each file that is there, by name.

  A run is what its files held when it began: with these in its config, an
  edited file is another run.

  Args:
    paths: of files, by what they are to the run; others are left out.
  """
  found = {}
  for name, path in paths.items():
    if path and pathlib.Path(path).is_file():
      content = pathlib.Path(path).read_bytes()
      found[name] = hashlib.sha256(content).hexdigest()[:16]
  return found


def load_params(workdir: pathlib.Path) -> Any:
  """The parameters of a run's last checkpoint, on the host, frozen ones too.

  Raises:
    ValueError: there is none, or one of a version whose heads were others.
  """
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints')
  params = checkpoints.arrays_under('state.params')
  if 'value_head' in params:
    raise ValueError(
      f'{workdir} has a critic of an earlier version (its parameter is '
      'value_head, and heads are under heads now), and cannot be read any '
      'more; train it again, or name a run without a critic.'
    )
  frozen = frozen_of(workdir)
  if frozen.latest_step() is None:
    return params
  return lora.join(params, frozen.arrays_under('frozen'))


def lora_of(workdir: pathlib.Path) -> config_lib.Lora | None:
  """What adapters a run trains; None if none, or if it does not say."""
  path = workdir / 'config.json'
  described = json.loads(path.read_text()) if path.exists() else {}
  found = described.get('model', {}).get('lora')
  if not found:
    return None
  return config_lib.Lora(**{**found, 'targets': tuple(found['targets'])})


def frozen_of(workdir: pathlib.Path) -> checkpoint.Checkpoints:
  """Where a run keeps, once, the parameters that it does not train."""
  return checkpoint.Checkpoints(workdir / 'frozen')


def _differences(before: Any, after: Any, name: str = '') -> list[str]:
  if isinstance(before, dict) and isinstance(after, dict):
    found = []
    for key in sorted(before.keys() | after.keys()):
      if name or key not in _FREE:
        inner = f'{name}.{key}' if name else key
        found += _differences(before.get(key), after.get(key), inner)
    return found
  return [] if before == after else [f'{name} was {before!r}, is {after!r}']


def git_commit() -> str:
  """The commit of the sources, or '' outside a repository."""
  here = pathlib.Path(__file__).parent
  command = ['git', 'describe', '--always', '--dirty', '--abbrev=12']
  try:
    done = subprocess.run(
      command, cwd=here, capture_output=True, text=True, timeout=5, check=False
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return done.stdout.strip()
