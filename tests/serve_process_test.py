"""experiments/serve.py as a process, driven by the official client."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from agentic_jax import serve
from agentic_jax.serve import listening
from tests import chat_templates
from tests import serve_world
from tests import thorough
from tests import tiny_published
from tests import tiny_training  # noqa: F401, keeps what it compiles

openai = pytest.importorskip('openai')

ROOT = pathlib.Path(__file__).parent.parent


def _command(*arguments: str) -> list[str]:
  return [sys.executable, 'experiments/serve.py', '--port=0', *arguments]


@pytest.fixture
def served(tmp_path):
  described = tiny_published.CONFIGS['llama']
  found = tiny_published.tensors(described)
  tiny_published.write_directory(tmp_path / 'small', described, found)
  chat_templates.write(tmp_path / 'small', 'chatml')
  (tmp_path / 'key').write_text('secret\n')
  command = _command(
    f'--model={tmp_path / "small"}',
    f'--api_key_file={tmp_path / "key"}',
    '--slots=2',
    '--limit=segment_tokens=100',
    '--limit=action_tokens=8',
  )
  process = subprocess.Popen(
    command,
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout is not None
    line = process.stdout.readline()
    url = re.search(r'small on (http://127.0.0.1:\d+/v1), 2 answers', line)
    assert url, (line, process.poll())
    yield process, url.group(1)
  finally:
    process.kill()
    process.wait()


def test_a_published_model_is_served(served):
  process, url = served
  client = openai.OpenAI(base_url=url, api_key='secret', max_retries=0)
  assert [model.id for model in client.models.list()] == ['small']
  messages = [{'role': 'user', 'content': 'hello'}]
  asked = dict(model='small', seed=1, logprobs=True)
  whole = client.chat.completions.create(messages=messages, **asked)
  with client.chat.completions.create(
    messages=messages, stream=True, **asked
  ) as stream:
    parts = [c.choices[0].delta.content or '' for c in stream]
  choice = whole.choices[0]
  assert ''.join(parts) == choice.message.content
  assert len(choice.logprobs.content) == whole.usage.completion_tokens <= 8
  messages += [choice.message, {'role': 'user', 'content': 'more'}]
  later = client.chat.completions.create(model='small', messages=messages)
  cached = later.usage.prompt_tokens_details.cached_tokens
  assert cached == whole.usage.total_tokens - 1
  done = client.completions.create(model='small', prompt='abc', max_tokens=3)
  assert done.usage.completion_tokens <= 3
  with pytest.raises(openai.BadRequestError, match='top_p=0.5 is not') as error:
    client.chat.completions.create(model='small', messages=messages, top_p=0.5)
  assert error.value.param == 'top_p'
  with pytest.raises(openai.AuthenticationError):
    openai.OpenAI(base_url=url, api_key='other').models.list()
  health = urllib.request.urlopen(url.replace('/v1', '/health'))
  assert json.load(health)['active'] == 0
  process.send_signal(signal.SIGTERM)
  process.wait(20)


@pytest.mark.parametrize(
  'case',
  thorough.some(
    [
      (('--model=mini',), 'a fresh model has nothing to say'),
      (('--model=mini', '--api_key_file=/dev/null'), 'is empty; write the key'),
    ],
    every=2,
  ),
)
def test_what_cannot_be_served_is_one_line(case):
  arguments, words = case
  done = subprocess.run(
    _command(*arguments),
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1 and words in done.stderr
  assert 'Traceback' not in done.stderr


def test_others_want_a_key():
  with serve_world.endpoint(loaded=False) as endpoint:
    with pytest.raises(ValueError, match='could use this server.*api_key_file'):
      serve.Listening(endpoint, host='0.0.0.0')
    locked = serve.Rules(api_key='k')
    serve.Listening(endpoint, host='0.0.0.0', rules=locked).close()
    with serve.Listening(endpoint).in_thread() as server:
      with pytest.raises(OSError, match='in use'):
        serve.Listening(endpoint, port=server.port)
  for host in ('127.0.0.1', 'localhost', '::1', '127.9.9.9'):
    assert listening.is_loopback(host)
  for host in ('0.0.0.0', '::', '10.0.0.1', 'example.org', ''):
    assert not listening.is_loopback(host)


def test_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'uvicorn', None)
  with pytest.raises(ValueError, match=r"agentic_jax\[serve\]'; uvicorn is mi"):
    serve.application(None)
