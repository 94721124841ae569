"""Python files of a user, imported by their path."""

import hashlib
import importlib.util
import pathlib
import sys
import types


def load(path: pathlib.Path) -> types.ModuleType:
  """Imports a Python file; what it raises is passed on.

  Args:
    path: of a file that exists. Files of one name in two folders stay apart.
  """
  path = path.resolve()
  digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
  name = f'user_{path.stem}_{digest}'
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec and spec.loader, path
  module = importlib.util.module_from_spec(spec)
  # Dataclasses and pickle look a class's module up by its name.
  sys.modules[name] = module
  spec.loader.exec_module(module)
  return module
