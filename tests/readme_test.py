"""The README is true: its example trains, its files exist."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
SMALL = (
  '--model=toy --steps=1 --tasks_per_step=2 --slots=8 --limit=turns=2 '
  '--limit=action_tokens=12 --limit=segment_tokens=47 --evaluate_every=0'
)


def blocks():
  """File name and content of each named code block."""
  pattern = r'`([\w.]+\.(?:py|jsonl))`[^`\n]*\n\n```\w+\n(.*?)```'
  return dict(re.findall(pattern, README, re.DOTALL))


def test_the_example_trains(tmp_path):
  files = blocks()
  assert set(files) == {'my_world.py', 'my_recipe.py', 'my_tasks.jsonl'}
  code = files['my_world.py'] + files['my_recipe.py']
  assert len([line for line in code.splitlines() if line.strip()]) <= 25
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  command = re.search(r'(experiments/run\.py.*?)\n```', README, re.DOTALL)
  flags = command[1].replace('\\\n', ' ').split()
  done = subprocess.run(
    [sys.executable, ROOT / flags[0], *flags[1:], *SMALL.split()],
    cwd=tmp_path,
    env={'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'runs' / 'double' / 'report.html').exists()


def test_everything_it_names_exists():
  for path in re.findall(r'\| `([\w./]+)`', README):
    assert (ROOT / path).exists(), path
  for path in re.findall(r'\]\(([\w./]+)\)', README):
    assert (ROOT / path).exists(), path


def test_every_target_of_the_makefile_can_be_made(tmp_path):
  makefile = (ROOT / 'Makefile').read_text()
  targets = re.search(r'\.PHONY: (.*)', makefile)[1].split()
  explained = re.findall(r'^# make (\w+)', makefile, re.MULTILINE)
  assert sorted(explained) == sorted(targets)
  for target in targets:
    command = ['make', '--dry-run', f'VENV={tmp_path / "new"}', target]
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tests = '-m pytest' in done.stdout
    assert tests == (target in ('parity', 'test', 'thorough'))
    types = '-m mypy' in done.stdout
    assert types == (target == 'check')
