"""third_party/manifest.toml against setup.py, and no host of an index."""

import ast
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FIELDS = {'name', 'what', 'pin', 'licence', 'source', 'extra'}


def _components() -> list[dict[str, str]]:
  text = (ROOT / 'third_party' / 'manifest.toml').read_text(encoding='utf-8')
  return tomllib.loads(text)['component']


def _requirements() -> set[tuple[str, str]]:
  """Pairs of an extra, or 'core', and a requirement of setup.py."""
  tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
  lists = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign) and node.targets[0].id in ('CORE', 'EXTRAS')
  }
  groups = {'core': lists['CORE'], **lists['EXTRAS']}
  return {(extra, line) for extra, lines in groups.items() for line in lines}


def test_manifest_and_setup_agree():
  listed = {
    (c['extra'], c['name'] + c['pin'])
    for c in _components()
    if c['extra'] != 'peer'
  }
  wanted = _requirements()
  assert listed == wanted, (
    'third_party/manifest.toml and setup.py differ. '
    f'Only in the manifest: {sorted(listed - wanted)}; '
    f'only in setup.py: {sorted(wanted - listed)}. '
    'Write the same name, pin and extra in both.'
  )


@pytest.mark.parametrize('component', _components(), ids=lambda c: c['name'])
def test_components_are_complete(component):
  assert set(component) == FIELDS
  assert all(component.values())
  assert component['source'] == 'pypi'
  assert re.match(r'[>=]=\d', component['pin'])


def test_peers_are_pinned_and_not_installed():
  peers = [c for c in _components() if c['extra'] == 'peer']
  installed = {re.split(r'[>=<\[]', line)[0] for _, line in _requirements()}
  for peer in peers:
    assert peer['pin'].startswith('==')
    assert peer['name'] not in installed


def test_no_host_of_an_index_is_named():
  hosts = ('pypi' + '.org', 'pythonhosted' + '.org', 'hugging' + 'face.co')
  skipped = {'.git', '.venv', 'runs', 'data', 'build', '__pycache__'}
  for path in ROOT.rglob('*'):
    parts = path.relative_to(ROOT).parts
    if skipped & set(parts) or not path.is_file():
      continue
    if any(part.endswith(('.egg-info', '_cache')) for part in parts):
      continue
    text = path.read_bytes()
    found = [host for host in hosts if host.encode() in text]
    assert not found, f'{path} names {found}; say "the package index".'
