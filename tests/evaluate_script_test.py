"""experiments/evaluate.py: any agent, scored the same way each time."""

import json
import pathlib

from absl import flags
from absl.testing import flagsaver
from array_record.python import array_record_data_source
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import report
from experiments import common
from experiments import evaluate
from experiments import sample_flags


@pytest.fixture(autouse=True)
def _parsed():
  # Imported first within a flagsaver, its flags would be gone after it.
  assert array_record_data_source
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test'])


def _scores(into: pathlib.Path, **settings) -> dict:
  """What the script writes, with flags of these values."""
  chosen = dict(
    workdir=str(into / 'run'),
    into=str(into),
    environment='echo',
    model='toy',
    slots=4,
    limit=['turns=2', 'action_tokens=6', 'segment_tokens=100'],
  )
  with flagsaver.flagsaver(**(chosen | settings)):
    evaluate.main()
  return json.loads((into / 'scores.json').read_text())


def test_a_policy_scores_the_same_with_other_workers(tmp_path, capsys):
  settings = dict(samples=3, first=4, sample=['temperature=1', 'top_k=90'])
  one = _scores(tmp_path / 'one', workers='1', **settings)
  other = _scores(tmp_path / 'other', workers='process:3', **settings)
  assert one['scores'] == other['scores'] and one['seconds'] > 0
  assert one['sampling']['top_k'] == 90 and one['samples'] == 3
  everything = one['scores'][0]
  assert (everything['tasks'], everything['episodes']) == (4, 12)
  assert list(everything['pass_at']) == ['1', '2', '3']
  assert everything['tokens'] > 2
  printed = capsys.readouterr().out
  assert 'pass@3, %' in printed and '12/12' in printed
  files = [
    (tmp_path / name / 'episodes' / 'evaluate_000000.jsonl').read_text()
    for name in ('one', 'other')
  ]
  assert files[0] == files[1] and len(files[0].splitlines()) == 12
  page = (tmp_path / 'one' / 'report.html').read_text()
  for words in (
    'pass@2',
    'cut by a limit',
    'repetition_penalty',
    'data-viewer',
  ):
    assert words in page
  assert 'toy · on echo · test tasks' in page


def test_scripted_agents(tmp_path, capsys):
  oracle = _scores(tmp_path / 'oracle', agent='oracle', first=5)
  assert oracle['scores'][0]['success'] == {
    'mean': 1.0,
    'low': pytest.approx(0.5655, abs=1e-4),
    'high': 1.0,
  }
  assert oracle['sampling'] is None
  random = _scores(tmp_path / 'random', agent='random', samples=4, pass_at=[2])
  assert list(random['scores'][0]['pass_at']) == ['2']
  assert random['scores'][0]['episodes'] == 4 * random['scores'][0]['tasks']
  acted = [
    json.loads(line)['turns'][0]['action']
    for line in (tmp_path / 'random/episodes/evaluate_000000.jsonl')
    .read_text()
    .splitlines()
  ]
  assert len(set(acted)) > 1
  again = _scores(tmp_path / 'again', agent='random', samples=4, pass_at=[2])
  assert again['scores'] == random['scores']
  assert 'oracle · on echo' in (tmp_path / 'oracle/report.html').read_text()
  with pytest.raises(ValueError, match='the same way each time; leave it out'):
    _scores(tmp_path / 'x', agent='oracle', samples=2)
  with pytest.raises(ValueError, match='pass@5 wants at least 5 .* got 4'):
    _scores(tmp_path / 'x', agent='random', samples=4, pass_at=[5])


@pytest.mark.thorough
def test_a_run_is_scored_as_it_was_trained(tmp_path):
  workdir = tmp_path / 'run'
  with flagsaver.flagsaver(
    environment='echo',
    model='toy',
    steps=1,
    tasks_per_step=1,
    evaluate_every=0,
    slots=4,
    set=['group_size=2', 'forced=<answer>x', 'top_k=9'],
    limit=['turns=2', 'action_tokens=6', 'segment_tokens=100'],
    workdir=str(workdir),
  ):
    common.train_run(common.build())
  with flagsaver.flagsaver(
    init_from=str(workdir), first=2, samples=2, limit=['action_tokens=4']
  ):
    evaluate.main()
  into = workdir / 'evaluations' / 'policy_test_first=2_samples=2'
  scores = json.loads((into / 'scores.json').read_text())
  assert scores['step'] == 1
  sampling = scores['sampling']
  assert (sampling['temperature'], sampling['top_k']) == (0.0, 9)
  lines = (into / 'episodes' / 'evaluate_000000.jsonl').read_text()
  turns = [t for x in lines.splitlines() for t in json.loads(x)['turns']]
  assert all(turn['action'].startswith('<answer>x') for turn in turns)
  # Of the run's limits all but that on the command line.
  assert {turn['num_tokens'] for turn in turns} <= {2, 3, 4}
  config = json.loads((into / 'config.json').read_text())
  assert config['limits']['segment_tokens'] == 100


def test_names_of_folders_say_what_was_asked(tmp_path):
  with flagsaver.flagsaver(
    into='', agent='random', samples=4, first=3, sample=['forced=<tool>']
  ):
    run = type('Run', (), {'workdir': tmp_path})
    found = evaluate.folder(run)
  name = 'random_test_forced=-tool-_first=3_samples=4'
  assert found == tmp_path / 'evaluations' / name
  assert evaluate.powers(1) == [1] and evaluate.powers(8) == [1, 2, 4, 8]
  assert evaluate.powers(6) == [1, 2, 4, 6]


def test_a_page_wants_scores(tmp_path):
  with pytest.raises(
    ValueError, match='no scores.json, or a broken one; write'
  ):
    report.write_scores(tmp_path)
  path = tmp_path / 'scores.json'
  path.write_text(json.dumps({'scores': [{'name': '<b>', 'success': 3}]}))
  page = report.write_scores(tmp_path).read_text()
  assert '&lt;b&gt;' in page and '<th scope="row"><b>' not in page


def test_how_actions_are_sampled():
  base = recipe_lib.Sampling(0.0, top_k=5, forbidden=('x',))
  parse = lambda *texts: sample_flags.parse(texts, base)
  assert parse() == base
  assert parse('top_p=0.9', 'top_k=0', 'grammar=actions') == base._replace(
    top_p=0.9, top_k=0, grammar='actions'
  )
  assert parse('forbidden=a', 'forbidden=b').forbidden == ('a', 'b')
  with pytest.raises(ValueError, match="no setting 'top'.*Did you mean 'top_"):
    parse('top=3')
  with pytest.raises(ValueError, match="such as 1.0, got 'much'"):
    parse('top_p=much')
  with pytest.raises(ValueError, match='top_p=2.0 .* out of range'):
    parse('top_p=2')
