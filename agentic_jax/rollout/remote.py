"""Environments in processes or Ray actors, behind the interface of one."""

from collections.abc import Callable, Mapping
import importlib
import logging
from multiprocessing import connection
import queue
import socket
import subprocess
import sys
from typing import Any, Protocol

from agentic_jax.environments import hosting

KINDS = ('thread', 'process', 'ray')
# How much longer than the loop a host waits for an answer that never comes.
_GRACE_SECONDS = 1.0
# What loading an environment may take.
_START_SECONDS = 300.0


class Died(RuntimeError):
  """The process of an environment ended in the middle of a call."""


class Host(Protocol):
  """An environment that runs elsewhere."""

  def wait(self) -> None:
    """Waits until it is there; raises Died if it never will be."""

  def call(
    self, method: str, arguments: tuple, seconds: float
  ) -> tuple[str, Any]:
    """What `hosting.answer` returns.

    Raises:
      Died: it is gone.
      TimeoutError: it did not answer in time.
    """

  def kill(self) -> None:
    """Ends it, whatever it is doing."""


class Process:
  """A host that is a Python process of this machine, without jax."""

  def __init__(self, name: str, settings: Mapping[str, Any]):
    """Starts it; it loads the environment while nobody waits.

    Args:
      name: of the environment, see `environments.load`.
      settings: of its constructor.
    """
    ours, theirs = socket.socketpair()
    self._end = connection.Connection(ours.detach())
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, '-m', hosting.__name__, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
      )
    self._end.send((name, dict(settings)))

  def wait(self) -> None:
    """See `Host`."""
    try:
      if not self._end.poll(_START_SECONDS):
        raise Died(f'no environment after {_START_SECONDS:.0f} s')
      self._end.recv()
    except (EOFError, ConnectionResetError) as error:
      raise Died(f'exit code {self._ended()}, at its start') from error

  def call(
    self, method: str, arguments: tuple, seconds: float
  ) -> tuple[str, Any]:
    """See `Host`."""
    try:
      self._end.send((method, arguments))
      if not self._end.poll(seconds):
        raise TimeoutError(f'no answer within {seconds} s')
      return self._end.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
      raise Died(f'exit code {self._ended()}') from error

  def _ended(self) -> int:
    """The exit code, once the other end is closed."""
    try:
      return self._process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      return self._process.wait()

  def kill(self) -> None:
    """Ends the process and waits for its end."""
    self._process.kill()
    self._process.wait()
    self._end.close()


class RayActor:
  """A host that is an actor of a Ray cluster, or of this machine."""

  def __init__(self, name: str, settings: Mapping[str, Any]):
    """Connects to Ray, once a process, and starts an actor.

    Args:
      name: of the environment, see `environments.load`.
      settings: of its constructor.

    Raises:
      ValueError: Ray is not installed.
    """
    self._ray = _ray()
    actor = self._ray.remote(num_cpus=0)(_Hosted)
    self._actor = actor.remote(name, dict(settings))

  def wait(self) -> None:
    """See `Host`."""
    try:
      self._ray.get(self._actor.__ray_ready__.remote(), timeout=_START_SECONDS)
    except self._ray.exceptions.RayActorError as error:
      raise Died(f'{error}, at its start') from error

  def call(
    self, method: str, arguments: tuple, seconds: float
  ) -> tuple[str, Any]:
    """See `Host`."""
    try:
      asked = self._actor.answer.remote(method, arguments)
      return self._ray.get(asked, timeout=seconds)
    except self._ray.exceptions.GetTimeoutError as error:
      raise TimeoutError(f'no answer within {seconds} s') from error
    except self._ray.exceptions.RayActorError as error:
      raise Died(str(error)) from error

  def kill(self) -> None:
    """Ends the actor."""
    self._ray.kill(self._actor)


class _Hosted:
  """What a Ray actor is."""

  def __init__(self, name: str, settings: Mapping[str, Any]):
    environments = importlib.import_module('agentic_jax.environments')
    self._environment = environments.load(name, **settings)

  def answer(self, method: str, arguments: tuple) -> tuple[str, Any]:
    return hosting.answer(self._environment, method, arguments)


def _ray() -> Any:
  try:
    ray = importlib.import_module('ray')
  except ImportError as error:
    raise ValueError(
      '--workers=ray:N wants Ray, which is not installed: pip install '
      "'agentic_jax[ray]', or take --workers=process:N."
    ) from error
  if not ray.is_initialized():
    ray.init(log_to_driver=False, include_dashboard=False)
  return ray


class Remote:
  """An environment whose `reset` and `step` run in hosts, one call each.

  What else an environment has is asked of the one that is here. A state is a
  value, so any host may go on from it: one that dies is replaced, the call is
  made again with its seed, and the episode goes on token for token. A call
  that hangs costs its host.
  """

  def __init__(
    self,
    environment: Any,
    start: Callable[[], Host],
    number: int,
    seconds: float,
  ):
    """Starts the hosts, all at once, and waits for them.

    Args:
      environment: the same, in this process.
      start: makes a host.
      number: of hosts; more are started where more are asked at once.
      seconds: what a call may take, as the rollout's limit has it.

    Raises:
      ValueError: a state of the environment can be stepped only once.
    """
    if not getattr(environment, 'forkable', True):
      raise ValueError(
        f'A state of {type(environment).__name__} can be stepped only once '
        '(forkable = False), so it cannot go from process to process; use '
        '--workers=thread:N.'
      )
    self._environment = environment
    self._start = start
    self._seconds = seconds + _GRACE_SECONDS
    self._idle: queue.SimpleQueue[Host] = queue.SimpleQueue()
    hosts = [start() for _ in range(number)]
    try:
      for host in hosts:
        host.wait()
        self._idle.put(host)
    except BaseException:
      for host in hosts:
        host.kill()
      raise

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):
      raise AttributeError(name)
    return getattr(self._environment, name)

  def reset(self, task: Any, seed: int) -> Any:
    """See `environments.base.Environment`."""
    return self._call('reset', task, seed)

  def step(self, state: Any, action: str, seed: int) -> Any:
    """See `environments.base.Environment`."""
    return self._call('step', state, action, seed)

  def _call(self, method: str, *arguments: Any) -> Any:
    """The call's result, from a second host where the first one died."""
    try:
      how, found = self._ask(method, arguments)
    except Died as death:
      logging.warning(
        'The process of an environment died (%s); the call is made again.',
        death,
      )
      try:
        how, found = self._ask(method, arguments)
      except Died as error:
        raise Died(
          f'two processes of the environment died of this {method}: {error}'
        ) from error
    if how == 'raised':
      raise found
    return found

  def _ask(self, method: str, arguments: tuple) -> tuple[str, Any]:
    """Asks a host that is idle, or a new one; it is kept if it lives."""
    fresh = False
    try:
      host = self._idle.get_nowait()
    except queue.Empty:
      fresh = True
      host = self._start()
    try:
      if fresh:
        host.wait()
      answered = host.call(method, arguments, self._seconds)
    except BaseException:
      host.kill()
      raise
    self._idle.put(host)
    return answered

  def close(self) -> None:
    """Ends the hosts that are idle."""
    try:
      while True:
        self._idle.get_nowait().kill()
    except queue.Empty:
      pass


def parse(text: str) -> tuple[str, int]:
  """The kind and the number of workers.

  Args:
    text: such as 'process:8'; a number alone is of threads.

  Raises:
    ValueError: it is neither.
  """
  kind, colon, number = text.rpartition(':')
  kind = kind if colon else 'thread'
  if kind not in KINDS or not number.isdecimal() or int(number) < 1:
    raise ValueError(
      f'--workers={text!r}: wanted a number from 1 up, such as 8, or one of '
      f'{", ".join(KINDS)} and a number, as in process:8.'
    )
  return kind, int(number)


def hosted(
  environment: Any,
  kind: str,
  number: int,
  name: str,
  settings: Mapping[str, Any],
  seconds: float,
) -> Any:
  """The environment in processes, in Ray actors, or as it is for threads.

  Args:
    environment: as loaded here.
    kind: one of `KINDS`.
    number: of processes or actors.
    name: with which it was loaded.
    settings: with which it was loaded.
    seconds: what a call may take.
  """
  if kind == 'thread':
    return environment

  def start() -> Host:
    make = RayActor if kind == 'ray' else Process
    return make(name, settings)

  return Remote(environment, start, number, seconds)
