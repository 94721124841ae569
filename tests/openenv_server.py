"""A world that is guessed at, served as OpenEnv serves worlds.

`serve` speaks the messages by a library of WebSockets; `serve_official` is the
package of OpenEnv itself.
"""

import contextlib
import json
import socket
import threading
import time


class Guess:
  """The number is the seed's last digit but four; a guess is told how it is."""

  def __init__(self):
    self.target = 0

  def reset(self, seed):
    self.target = (seed or 0) // 10_000 % 10
    return {'hint': 'a digit', 'digits': 10}, None, False

  def step(self, guess):
    if guess == 99:
      raise ZeroDivisionError('99 is no digit')
    hint = 'right'
    if guess != self.target:
      hint = 'higher' if guess < self.target else 'lower'
    right = hint == 'right'
    return {'hint': hint, 'digits': 10}, 1.0 if right else -0.1, right


def _play(connection):
  world = Guess()
  for text in connection:
    asked = json.loads(text)
    data = asked.get('data', {})
    if data.get('guess') == 98:
      connection.close()
      return
    if asked['type'] == 'close':
      return
    try:
      if asked['type'] == 'reset':
        seen, reward, done = world.reset(**data)
      else:
        seen, reward, done = world.step(int(data['guess']))
    except (KeyError, TypeError, ValueError) as error:
      answer = {
        'type': 'error',
        'data': {
          'message': 'Invalid message',
          'code': 'VALIDATION_ERROR',
          'errors': [{'loc': ['guess'], 'msg': str(error)}],
        },
      }
    except ZeroDivisionError as error:
      answer = {
        'type': 'error',
        'data': {'message': str(error), 'code': 'EXECUTION_ERROR'},
      }
    else:
      answer = {
        'type': 'observation',
        'data': {'observation': seen, 'reward': reward, 'done': done},
      }
    connection.send(json.dumps(answer))


@contextlib.contextmanager
def serve():
  """The address of a server in a thread."""
  from websockets.sync import server

  with server.serve(_play, '127.0.0.1', 0) as served:
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{served.socket.getsockname()[1]}'
    served.shutdown()


@contextlib.contextmanager
def serve_official():
  """The address of a server by OpenEnv, in a thread."""
  from openenv.core.env_server import http_server
  from openenv.core.env_server import interfaces
  from openenv.core.env_server import types
  import uvicorn

  class Asked(types.Action):
    guess: int

  class Seen(types.Observation):
    hint: str
    digits: int

  class Served(interfaces.Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
      super().__init__()
      self.world = Guess()

    def reset(self, seed=None, episode_id=None, **rest):
      return self._seen(*self.world.reset(seed))

    def step(self, action, timeout_s=None, **rest):
      return self._seen(*self.world.step(action.guess))

    def _seen(self, seen, reward, done):
      return Seen(**seen, reward=reward, done=done)

    @property
    def state(self):
      return types.State()

  app = http_server.create_fastapi_app(
    Served, Asked, Seen, max_concurrent_envs=4
  )
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  server = uvicorn.Server(
    uvicorn.Config(app, host='127.0.0.1', port=port, log_level='error')
  )
  thread = threading.Thread(target=server.run, daemon=True)
  thread.start()
  while not server.started:
    time.sleep(0.02)
  yield f'http://127.0.0.1:{port}'
  server.should_exit = True
  thread.join()
