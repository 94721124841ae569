import json
import math
import pathlib
import random
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from agentic_jax import report
from agentic_jax.report import charts
from agentic_jax.report import costs
from agentic_jax.report import reading
from agentic_jax.report import text
from agentic_jax.report import viewer
from tests import synthetic_run

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)><!--'


class _Parts(NamedTuple):
  """What a page says apart from its markup."""

  data: dict
  markup: str


def _parts(path) -> _Parts:
  """The embedded data of a page, and the page without it."""
  page = path.read_text('utf-8')
  pattern = r'<script type="application/json" id="data-(\w+)">(.*?)</script>'
  data = {m[1]: json.loads(m[2]) for m in re.finditer(pattern, page, re.S)}
  return _Parts(data, re.sub(pattern, '', page, flags=re.S))


@pytest.fixture(scope='module')
def run_path(tmp_path_factory):
  return synthetic_run.make_run(tmp_path_factory.mktemp('runs') / 'quickstart')


@pytest.fixture(scope='module')
def page_path(run_path):
  return report.write(run_path)


def test_page_has_every_section_and_the_headline_numbers(run_path, page_path):
  assert page_path == run_path / 'report.html'
  _, markup = _parts(page_path)
  for words in (
    'python experiments/quickstart.py --seed=0',
    '0123abcd',
    'Granularity of credit',
    '97.0\u202f%',
    'Learning curves',
    'Held-out results',
    'Ratio mismatch',
    'Reward by component',
    'Stage of the curriculum',
    'Difficulty of the tasks drawn',
    'difficulty 3',
    'Reinforcement learning <span>',
    'warm start',
    'of the 432 episodes',
  ):
    assert words in markup, words


def test_page_asks_nothing_of_a_network(page_path):
  page = page_path.read_text('utf-8')
  assert page_path.stat().st_size < 5_000_000
  for pattern in (r'\ssrc=', r'url\(', r'@import', r'href="(?!#|data:)'):
    assert not re.search(pattern, page), pattern
  assert "default-src 'none'" in page


def test_page_is_the_same_twice(run_path, page_path):
  before = page_path.read_bytes()
  assert report.write(run_path).read_bytes() == before


def test_text_of_a_model_stays_text(tmp_path):
  run = synthetic_run.make_run(tmp_path / 'hostile', steps=10, warm=False)
  config = json.loads((run / 'config.json').read_text())
  config['recipe']['name'] = config['seed'] = HOSTILE
  config['flags'] = {HOSTILE: HOSTILE}
  (run / 'config.json').write_text(json.dumps(config))
  for name in ('step', 'evaluate'):
    path = run / f'episodes/{name}_000010.jsonl'
    records, _ = reading.lines(path)
    for record in records:
      record['task'] |= {'prompt': HOSTILE, 'kind': HOSTILE}
      record['segments'][0]['pieces'][3] = HOSTILE
      record['segments'][0]['pieces'][4] = '\udc80\u2028'
    synthetic_run.write_lines(path, records)
  (run / 'credit.json').write_text(
    json.dumps(synthetic_run.make_credit(random.Random(0)) | {'note': HOSTILE})
  )
  path = report.write(run)
  data, markup = _parts(path)
  assert HOSTILE not in path.read_text('utf-8')
  assert '<img' not in markup and '<script>alert' not in markup
  assert markup.count('</script>') == 1
  episode = data['viewer']['files'][0]['episodes'][0]
  assert episode['prompt'] == HOSTILE
  assert episode['segments'][0]['pieces'][3:5] == [HOSTILE, '\udc80\u2028']


@pytest.mark.parametrize(
  'lost, sentence',
  [
    (['metrics.jsonl'], 'There is no metrics.jsonl'),
    (['config.json'], 'There is no config.json'),
    (['summary.json'], 'the run has not ended'),
    (['credit.json'], 'No worked example'),
    (['episodes'], 'No episodes: the run has no'),
    (['metrics.jsonl', 'episodes', 'warm_start'], 'No held-out results'),
  ],
)
def test_a_missing_file_is_a_sentence_on_the_page(tmp_path, lost, sentence):
  run = synthetic_run.make_run(tmp_path / 'run', steps=10)
  for name in lost:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  assert sentence in report.write(run).read_text('utf-8')


def test_an_empty_directory_gives_a_page(tmp_path):
  assert 'No curves' in report.write(tmp_path).read_text('utf-8')


def test_a_directory_that_is_not_there_is_refused(tmp_path):
  with pytest.raises(ValueError, match='Wanted a run directory, got .*nowhere'):
    report.write(tmp_path / 'nowhere')


def test_half_written_lines_are_left_out(tmp_path):
  run = synthetic_run.make_run(tmp_path / 'run', steps=10)
  for name in ('metrics.jsonl', 'episodes/step_000010.jsonl'):
    with (run / name).open('a') as file:
      file.write('{"step": 11, "train/lo')
  (run / 'summary.json').write_text('{"success_after": 0.9')
  loaded = reading.load(run)
  assert loaded.metrics[-1]['step'] == 10
  page = report.write(run).read_text('utf-8')
  assert '1 line of metrics.jsonl could not be read' in page
  assert 'summary.json is not complete JSON' in page


def test_values_of_wrong_types_do_not_break_a_page(tmp_path):
  episodes = tmp_path / 'episodes'
  episodes.mkdir()
  lines = [
    {'step': 1, 'train/loss': math.nan, 'rollout/success': 'high'},
    {'step': 2, 'train/loss': math.inf, 'rollout/success': 0.5},
    {'step': True},
    {'train/loss': 1.0},
  ]
  synthetic_run.write_lines(tmp_path / 'metrics.jsonl', lines)
  records = [
    {},
    {'task': 3, 'turns': [4, None], 'segments': [5, {'pieces': [1, None]}]},
    {'segments': [{'pieces': ['a'], 'advantages': [math.nan], 'turn': 'x'}]},
    {'turns': [{'action': 'hello', 'observation': 'world', 'reward': None}]},
  ]
  synthetic_run.write_lines(episodes / 'step_000001.jsonl', records)
  synthetic_run.write_lines(episodes / 'evaluate_000002.jsonl', records)
  (tmp_path / 'config.json').write_text('[]')
  (tmp_path / 'credit.json').write_text('{"episodes": [1], "estimators": 2}')
  data, _ = _parts(report.write(tmp_path))
  assert len(data['viewer']['files']) == 2


def test_a_long_run_stays_small_and_says_what_it_left_out(tmp_path):
  chance = random.Random(0)
  record = synthetic_run.make_episode(chance, 1, 0, 0, 0.5, split='train')
  segment = record['segments'][0]
  long = {name: values * 50 for name, values in segment.items()}
  record['segments'] = [long, long]
  synthetic_run.write_lines(
    tmp_path / 'episodes/step_000001.jsonl', [record] * 64
  )
  synthetic_run.write_lines(
    tmp_path / 'episodes/evaluate_000001.jsonl', [record] * 64
  )
  path = report.write(tmp_path)
  data, markup = _parts(path)
  assert path.stat().st_size < 5_000_000
  files = data['viewer']['files']
  shown = sum(len(file['episodes']) for file in files)
  assert 0 < shown < 128
  assert f'{shown} of the 128 episodes' in markup
  episode = files[0]['episodes'][0]
  assert episode['cut']
  assert sum(len(s['pieces']) for s in episode['segments']) == viewer.MAX_TOKENS


def test_failures_of_held_out_come_first_and_groups_stay_whole():
  outcomes = [{'success': k % 4 > 0, 'draw': k // 8} for k in range(80)]
  chosen = viewer.choose_held_out(outcomes, 12)
  assert [record['success'] for record in chosen] == [False] * 8 + [True] * 4
  dull = [{'success': True, 'draw': 0, 'reward': 1.0}] * 8
  mixed = [{'success': k > 3, 'draw': 1} for k in range(8)]
  faulty = [{'failure': 'hung' if k == 5 else '', 'draw': 2} for k in range(8)]
  chosen = viewer.choose_groups([*dull, *mixed, *faulty], 16)
  assert [record['draw'] for record in chosen] == [2] * 8 + [1] * 8
  assert chosen[0]['failure'] == 'hung'


def test_worked_example_holds_every_estimator_for_every_token(page_path):
  credit = _parts(page_path).data['credit']
  assert [e['name'] for e in credit['estimators']] == list(
    synthetic_run.ESTIMATORS
  )
  assert len(credit['episodes']) == 8
  assert {e['prompt'] for e in credit['episodes']} == {'3^17 mod 41'}
  for episode in credit['episodes']:
    segment = episode['segments'][0]
    for name in synthetic_run.ESTIMATORS:
      assert len(segment['credit'][name]) == len(segment['pieces'])


def test_held_out_table_counts_by_hand(tmp_path):
  def line(success, kind, difficulty, calls):
    return {
      'success': success,
      'task': {'kind': kind, 'difficulty': difficulty},
      'turns': [{'num_calls': calls}],
    }

  before = [line(False, 'a', 1, 0), line(True, 'b', 1, 2)]
  after = [line(True, 'a', 1, 1), line(True, 'b', 1, 2)]
  synthetic_run.write_lines(tmp_path / 'episodes/evaluate_000000.jsonl', before)
  synthetic_run.write_lines(tmp_path / 'episodes/evaluate_000007.jsonl', after)
  markup = _parts(report.write(tmp_path)).markup
  rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', markup, re.S)
  rows = [re.sub(r'<[^>]+>', ' ', row).split() for row in rows]
  assert rows[0] == 'all 2 50.0 % 1/2 100.0 % 2/2 1 → 1.5'.split()
  assert rows[2] == 'a 1 0.0 % 0/1 100.0 % 1/1 0 → 1'.split()


def test_phases_of_time_add_up(tmp_path):
  line = {'step': 1, 'time/sample': 5.0, 'time/environment': 2.0}
  line |= {'time/train': 3.0, 'time/evaluate': 4.0, 'time/step': 13.0}
  synthetic_run.write_lines(tmp_path / 'metrics.jsonl', [line])
  phases = costs.phase_seconds(reading.load(tmp_path))
  assert phases == {
    'sample': 3.0,
    'environment': 2.0,
    'train': 3.0,
    'evaluate': 4.0,
    'other': 1.0,
  }


def test_ticks_are_round_and_inside():
  assert charts.ticks(0.0, 1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]
  assert charts.ticks(0.0, 60.0, 5) == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
  assert charts.ticks(3.0, 3.0) == [3.0]


def test_figures_are_short():
  values = (0.0, 0.12345, 1234.6, 2.5e7, 1e-6, None)
  assert [text.figure(value) for value in values] == [
    '0',
    '0.123',
    '1\u202f235',
    '2.5e7',
    '1e-6',
    '–',
  ]
  assert text.seconds(247) == '4\u202fmin 07\u202fs'


def test_comparison_shows_all_runs_and_what_differs(tmp_path, run_path):
  other = synthetic_run.make_run(
    tmp_path / 'other', seed=1, steps=20, clip_high=0.4
  )
  markup = _parts(report.compare([run_path, other], tmp_path / 'c.html')).markup
  for words in ('quickstart', 'other', 'recipe.settings.clip_high', 'Entropy'):
    assert words in markup
  assert 'recipe.settings.group_size' not in markup


def test_comparison_names_runs_of_one_name_by_their_paths(tmp_path):
  paths = [
    synthetic_run.make_run(tmp_path / name / 'run', steps=2)
    for name in ('a', 'b')
  ]
  markup = _parts(report.compare(paths, tmp_path / 'c.html')).markup
  assert 'a/run' in markup and 'b/run' in markup
  with pytest.raises(ValueError, match='at least one run directory'):
    report.compare([], tmp_path / 'c.html')


def test_report_imports_no_jax():
  code = 'import sys, agentic_jax.report; assert "jax" not in sys.modules'
  subprocess.run([sys.executable, '-c', code], check=True)


def _browse(path: pathlib.Path, profile: pathlib.Path):
  browser = shutil.which('chromium') or shutil.which('google-chrome')
  if not browser:
    pytest.skip('There is no Chromium here to open the page with.')
  flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run '
  flags += '--disable-background-networking --disable-component-update '
  flags += '--disable-sync --enable-logging=stderr --dump-dom'
  return subprocess.run(
    [browser, *flags.split(), f'--user-data-dir={profile}', path.as_uri()],
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_the_page_runs_in_a_browser_without_errors(page_path, tmp_path):
  result = _browse(page_path, tmp_path / 'profile')
  if not result.stdout:
    pytest.skip('Chromium does not start here.')
  assert 'CONSOLE' not in result.stderr
  assert result.stdout.count('class="row"') == len(synthetic_run.ESTIMATORS)
  assert 'aria-selected="true"' in result.stdout
