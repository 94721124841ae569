"""The shell that is a value, against worked examples and a real shell."""

import pathlib
import random
import shutil
import subprocess

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import shell as shell_lib

FILES = {
  'a.txt': 'owl12\nbee42\n',
  'docs': None,
  'docs/b.txt': 'bee42\nbee42 x\n',
  'docs/sub': None,
  'empty': None,
}
START = shell_lib.Shell(tuple(sorted(FILES.items())))


def play(*lines, shell=START):
  """The shell after some commands, and what the last one wrote."""
  says = ''
  for line in lines:
    shell, says = shell_lib.run(shell, line)
  return shell, says


@pytest.mark.parametrize(
  'line, says',
  [
    ('ls', 'a.txt docs/ empty/'),
    ('ls docs', 'b.txt sub/'),
    ('ls a.txt', 'a.txt'),
    ('ls *', 'a.txt\n/docs: b.txt sub/\n/empty:'),
    ('cat a.txt', 'owl12\nbee42'),
    ('wc docs/b.txt', '2 3 14 docs/b.txt'),
    ('grep bee a.txt', 'bee42'),
    ('grep -c bee42 a.txt docs/b.txt', 'a.txt:1\ndocs/b.txt:2'),
    ('grep -r bee42 /', '/a.txt:bee42\n/docs/b.txt:bee42\n/docs/b.txt:bee42 x'),
    ("echo 'a  b' c", 'a  b c'),
    ('pwd', '/'),
    ('grep none a.txt', ''),
  ],
)
def test_what_commands_write(line, says):
  assert play(line) == (START, says)


@pytest.mark.parametrize(
  'line, changes',
  [
    ('echo hi > new', {'new': 'hi\n'}),
    ('echo hi >> a.txt', {'a.txt': 'owl12\nbee42\nhi\n'}),
    ('mkdir docs/new', {'docs/new': None}),
    ('cp a.txt docs', {'docs/a.txt': 'owl12\nbee42\n'}),
    ('mv a.txt docs/c', {'a.txt': 0, 'docs/c': 'owl12\nbee42\n'}),
    ('mv docs/* empty', 'is a directory'),
    (
      'mv docs/*.txt empty',
      {'docs/b.txt': 0, 'empty/b.txt': 'bee42\nbee42 x\n'},
    ),
    ('rm -r docs', {'docs': 0, 'docs/b.txt': 0, 'docs/sub': 0}),
    ('rm docs', 'is a directory'),
    ('rm -r /', 'is a directory'),
    ('grep -c bee a.txt > n', {'n': '1\n'}),
    ('cat /etc/passwd', 'no such file'),
    ('cat ../../a.txt > b', {'b': 'owl12\nbee42\n'}),
    ('echo $(ls) `ls`', {}),
    ('ls | wc', 'one command'),
    ('ls; rm a.txt', 'one command'),
    ('ls && ls', 'one command'),
    ("echo 'a", 'a quote'),
    ('echo a > b c', 'wants one file'),
    ('echo a > none/b', 'no such directory'),
    ('echo a > docs', 'cannot be written'),
    ('echo a > "x y"', 'cannot be written'),
    ('bash a.txt', 'command not found'),
    ('cd a.txt', 'no such directory'),
    ('mv a.txt a.txt', 'the same file'),
    ('mkdir docs', 'is there'),
    ('echo ' + 'x' * 300, 'one short line'),
    ('', 'no command'),
  ],
)
def test_what_commands_change(line, changes):
  if isinstance(changes, str):
    with pytest.raises(shell_lib.WrongCommand, match=changes):
      play(line)
    return
  wanted = {k: v for k, v in {**FILES, **changes}.items() if v != 0}
  assert dict(play(line)[0].files) == wanted
  assert dict(START.files) == FILES


def test_one_stands_somewhere():
  shell, says = play('cd docs', 'cd sub', 'pwd')
  assert says == '/docs/sub' and shell.place == 'docs/sub'
  assert play('ls ..', shell=shell)[1] == 'b.txt sub/'
  assert play('mv ../b.txt .', 'cd', 'ls docs/sub', shell=shell)[1] == 'b.txt'
  with pytest.raises(shell_lib.WrongCommand, match='is a directory'):
    play('rm -r /docs', shell=shell)


def test_a_disk_is_bounded():
  shell = START
  with pytest.raises(shell_lib.WrongCommand, match='too large'):
    for _ in range(99):
      shell, _ = play('cat a.txt a.txt docs/b.txt >> a.txt', shell=shell)
  with pytest.raises(shell_lib.WrongCommand, match='disk is full'):
    for number in range(99):
      shell, _ = play(f'mkdir d{number}', shell=shell)
  assert len(shell.files) == shell_lib.MAX_ENTRIES


_LINES = (
  'echo {w} > {f}', 'echo {w} >> {f}', 'cp {f} {g}', 'mv {f} {g}', 'rm {f}',
  'mkdir {g}', 'mv {f} {d}', 'cp {f} {d}', 'mkdir {d}', 'cat {f} {g}',
  'grep {w} {f}', 'grep -c {w} {f}', 'cat {d}/*', 'echo {w} > {d}/x',
)  # fmt: skip


@pytest.mark.skipif(shutil.which('bash') is None, reason='there is no bash')
def test_a_real_shell_does_the_same(tmp_path):
  """What succeeds of 400 commands at random does so in bash, and alike."""
  rng, shell = random.Random(0), shell_lib.Shell((('d', None), ('e', None)))
  for name, _ in shell.files:
    (tmp_path / name).mkdir()
  lines, wrote = [], []
  for _ in range(400):
    words = {
      'w': rng.choice(['owl', 'bee', 'o']),
      'f': rng.choice(['a', 'b', 'd/a', 'd/x']),
      'g': rng.choice(['a', 'c', 'd/b']),
      'd': rng.choice(['d', 'e']),
    }
    line = rng.choice(_LINES).format(**words)
    try:
      shell, says = shell_lib.run(shell, line)
    except shell_lib.WrongCommand:
      continue
    lines.append(line)
    wrote.append(says)
  assert len(lines) > 100
  script = '\n'.join(f'{line}; echo "--$?"' for line in lines)
  done = subprocess.run(
    ['bash', '-c', script], cwd=tmp_path, capture_output=True, text=True
  )
  parts = done.stdout.split('--')
  theirs = [parts[0]] + [part.partition('\n')[2] for part in parts[1:-1]]
  assert [x.rstrip('\n') for x in theirs] == wrote, done.stderr
  found = {
    str(path.relative_to(tmp_path)): None if path.is_dir() else path.read_text()
    for path in pathlib.Path(tmp_path).rglob('*')
  }
  assert found == dict(shell.files)


def test_work_is_judged_by_the_state():
  world = environments.load('terminal', command_price=0.01, error_price=0.1)
  goal = {k: v for k, v in FILES.items() if k != 'a.txt'}
  task = types.Task(0, 'remove a.txt', data={'files': FILES, 'goal': goal})
  begin = world.reset(task, 0)
  early = world.step(begin.state, '<answer>done</answer>', 0)
  assert early.terminated and early.reward['final'] == 0
  after = world.step(begin.state, '<tool>rm a.txt</tool>', 0)
  assert dict(after.reward) == {'auxiliary': -0.01}
  wrong = world.step(after.state, '<tool>rm a.txt</tool>', 0)
  assert wrong.observation.text == 'error: a.txt: no such file'
  assert wrong.reward['auxiliary'] == pytest.approx(-0.11)
  assert world.step(wrong.state, '<answer>no</answer>', 0).reward['final'] == 0
  end = world.step(wrong.state, '<answer>done</answer>', 0)
  assert end.reward['final'] == 1
  # Whoever removes more is not paid.
  more = world.step(after.state, '<tool>rm -r empty</tool>', 0)
  end = world.step(more.state, '<answer>done</answer>', 0)
  assert end.reward['final'] == 0


def test_the_solver_mends_what_went_wrong():
  world = environments.load('terminal', max_turns=20)
  goal = {**FILES, 'n': '3\n'}
  task = types.Task(0, 'count', data={'files': FILES, 'goal': goal})
  state = world.reset(task, 0).state
  for line in ('rm -r docs', 'echo x > a.txt', 'mkdir odd', 'echo 4 > n'):
    state = world.step(state, f'<tool>{line}</tool>', 0).state
  while not state.ended:
    last = world.step(state, world.oracle(state), 0)
    state = last.state
  assert last.reward['final'] == 1


def test_a_task_without_a_directory_is_refused():
  with pytest.raises(ValueError, match=r"wants its directory in data\['files"):
    environments.load('terminal').reset(types.Task(0, 'Q'), 0)
