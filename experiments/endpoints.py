"""An agent behind an endpoint of OpenAI's interface, played in a world.

A conversation is an episode, or what an agent sees of it where there are
several: the observation at its beginning is said by the user, each reply is an
action, and what the world answers is told by the user, or by a tool where the
reply called one. The key comes from an environment
variable, goes nowhere but into the client, and is never written.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import os
import pathlib
from typing import Any
from urllib import parse as urllib_parse

from agentic_jax import context
from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import serve
from agentic_jax import types
from agentic_jax.rollout import faults
from agentic_jax.rollout import parts

# What other servers say when a conversation is longer than they can read.
_TOO_LONG = ('context_length_exceeded', 'exceed_context_size_error')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
  """Where an endpoint is and how it is spoken to.

  Attributes:
    url: as http://127.0.0.1:8000/v1.
    model: its name there; '' is the only one.
    key: the environment variable that holds the key.
    role: who tells observations, user or tool; '' follows from the endpoint.
    tools: 'yes' offers the world's tools as functions, 'no' asks for actions
      as text; '' follows from the endpoint and the world.
    system: a file whose text opens each conversation; '' is what explains the
      form of actions, and nothing to a policy that was trained on them.
    seconds: that an answer may take; past it the episode is lost.
    retries: of a request that the server could not answer.
  """

  url: str
  model: str = ''
  key: str = 'OPENAI_API_KEY'
  role: str = ''
  tools: str = ''
  system: str = ''
  seconds: float = 60.0
  retries: int = 2


def parse(text: str) -> Address:
  """The address that --endpoint says: URL,name=value,...

  Raises:
    ValueError: the URL is none, or a name or a value is unknown.
  """
  url, *options = text.split(',')
  split = urllib_parse.urlsplit(url)
  if split.scheme not in ('http', 'https') or not split.hostname:
    raise ValueError(
      f'--endpoint={url!r}: wanted a URL such as http://127.0.0.1:8000/v1, and '
      'after it, if need be, ,model=NAME.'
    )
  if split.username or split.password or split.query:
    raise ValueError(
      '--endpoint: a URL without user, password and query is wanted, because '
      'it is written to config.json. Put the key into an environment variable, '
      'by default OPENAI_API_KEY, and name another by ,key=NAME.'
    )
  kinds = {f.name: f.type for f in dataclasses.fields(Address)}
  del kinds['url']
  chosen: dict[str, Any] = {}
  for option in options:
    name, _, value = option.partition('=')
    if name not in kinds:
      close = difflib.get_close_matches(name, kinds, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      raise ValueError(
        f'--endpoint: there is no setting {name!r}.{hint} There are '
        f'{", ".join(kinds)}.'
      )
    chosen[name] = _value(name, value)
  return Address(url=url, **chosen)


def _value(name: str, value: str) -> Any:
  """A setting of an address from its text."""
  possible = {'role': ('user', 'tool'), 'tools': ('yes', 'no')}.get(name)
  if possible and value not in possible:
    raise ValueError(
      f'--endpoint: {name}={value!r} is none of {", ".join(possible)}.'
    )
  kind: Any = {'seconds': float, 'retries': int}.get(name, str)
  try:
    found = kind(value)
  except ValueError:
    found = -1
  if kind is not str and found < 0:
    raise ValueError(
      f'--endpoint: {name}={value!r} is no positive number; such as '
      f'{name}={getattr(Address(url=""), name)}.'
    )
  return found


class Agent:
  """Whoever answers at an endpoint. Several threads may play."""

  def __init__(
    self,
    address: Address,
    world: rollout.World,
    sampling: Mapping[str, Any],
  ):
    """Asks the endpoint what it serves, so that a wrong address costs nothing.

    Args:
      address: of `parse`.
      world: where episodes are played; what the policy sees is everything.
      sampling: fields of each request, such as temperature.

    Raises:
      ValueError: nobody answers, the key is refused, there is no such model,
        or the world shows images or forgets what was said.
    """
    if world.context is not context.append_all or world.images is not None:
      raise ValueError(
        'An endpoint is told the whole conversation, as text: leave --context '
        'out, and take a world without images.'
      )
    self.world, self.sampling = world, dict(sampling)
    self._openai = _library()
    self._client = self._openai.OpenAI(
      base_url=address.url,
      api_key=_key(address),
      timeout=address.seconds,
      max_retries=address.retries,
    )
    served = self._models(address)
    self.model = _model_of(address, served)
    # One that was trained on this form of actions speaks it by itself.
    own = self._own = served.get(self.model) == 'tags'
    offers = bool(world.tools) and not own
    self.offers = {'yes': True, 'no': False}.get(address.tools, offers)
    if self.offers and not world.tools:
      raise ValueError(
        '--endpoint: tools=yes, and this environment tells of no tools; leave '
        'it out.'
      )
    self.role = address.role or ('tool' if own else 'user')
    self.system = '' if own else _explain(world, self.offers)
    if address.system:
      self.system = pathlib.Path(address.system).read_text(encoding='utf-8')

  def _models(self, address: Address) -> dict[str, str]:
    """What is served, by name: 'tags' where it speaks our form of actions."""
    errors = self._openai
    try:
      found = list(self._client.models.list())
    except errors.AuthenticationError as error:
      raise ValueError(
        f'--endpoint={address.url} refuses the key in the environment variable '
        f'{address.key}, or there is none; set it, or name another by '
        ',key=NAME.'
      ) from error
    except errors.APIConnectionError as error:
      raise ValueError(
        f'--endpoint={address.url}: nobody answers there '
        f'({type(error.__cause__ or error).__name__}). Is it started, and does '
        'its URL end as it should, often in /v1?'
      ) from error
    except errors.APIError:
      return {}  # It does not say what it serves.
    return {m.id: (m.model_extra or {}).get('actions', '') for m in found}

  def play(self, request: rollout.Request) -> types.Episode:
    """An episode; a fault of the endpoint or of the world has cost it."""
    talk = _Talk(self, request)
    failure, detail = '', ''
    try:
      talk.go()
    except faults.Garbage as error:
      failure, detail = error.kind, str(error)
    except self._openai.APITimeoutError as error:
      failure, detail = 'hung', f'endpoint: {error}'
    except self._openai.APIError as error:
      failure, detail = 'raised', f'endpoint: {error}'[:500]
      if getattr(error, 'code', None) in _TOO_LONG:
        # The limit of a segment, and no fault but at the beginning.
        talk.truncated = bool(talk.turns)
        failure = '' if talk.turns else 'long'
    except Exception as error:  # Whatever it is costs one episode.
      failure, detail = 'raised', faults.describe(error)
    return types.Episode(
      *(request.task, request.draw, request.member, (), tuple(talk.turns)),
      terminated=talk.terminated,
      truncated=talk.truncated,
      failure=failure,
      detail=detail if failure else '',
    )

  def ask(self, messages: Sequence[Any], limit: int, seed: int) -> Any:
    """The completion that goes on from messages."""
    fields = dict(self.sampling, max_completion_tokens=limit)
    if fields.get('temperature'):
      fields['seed'] = seed
    if self.offers:
      fields |= dict(tools=list(self.world.tools), parallel_tool_calls=False)
    return self._client.chat.completions.create(
      model=self.model, messages=messages, **fields
    )

  def action(self, message: Any) -> str:
    """The text of an action, from a reply."""
    grammar, content = self.world.grammar, message.content or ''
    calls = [
      serve.Call(call.function.name, call.function.arguments)
      for call in message.tool_calls or ()
    ]
    if calls:
      tags = serve.Tags(grammar)
      return ''.join(tags.render(serve.Meant('', (c,))) for c in calls)
    ends = [
      content.index(stop) + len(stop)
      for stop in grammar.stop_strings
      if stop in content
    ]
    if ends and not self._own:
      # What a server says after the end of an action is not part of it.
      return content[: min(ends)]
    if self.offers and content.strip():
      return grammar.render(protocol.Action(answer=content.strip()))
    return content


class _Talk:
  """One episode; each agent of its world has a conversation of its own."""

  def __init__(self, agent: Agent, request: rollout.Request):
    self.turns: list[types.Turn] = []
    self.terminated = self.truncated = False
    self._agent, self._request = agent, request
    self._messages: dict[int, list[Any]] = {}  # By who moves.

  def go(self) -> None:
    """Plays to the end."""
    world, request = self._agent.world, self._request
    seed = rollout.derive_seed(world.seed, request.draw)
    at = faults.check(world.environment.reset(request.task, seed))
    self._tell(at)
    limits = world.limits
    spent = 0
    while not (self.terminated or self.truncated):
      at = self._turn(
        at, min(limits.action_tokens, limits.episode_tokens - spent)
      )
      spent += self.turns[-1].num_tokens
      self.terminated = bool(at.terminated)
      self.truncated = not self.terminated and (
        bool(at.truncated)
        or len(self.turns) >= limits.turns
        or spent >= limits.episode_tokens
      )

  def _turn(self, at: types.Transition, limit: int) -> types.Transition:
    agent, world, request = self._agent, self._agent.world, self._request
    number = len(self.turns)
    seed = rollout.derive_seed(world.seed, request.draw, request.member, number)
    # Servers take seeds of 31 bits.
    told = self._messages[self._place(at)]
    reply = agent.ask(told, limit, seed & 0x7FFFFFFF)
    choice = reply.choices[0]
    told.append(_said(choice.message))
    text = agent.action(choice.message)
    action = world.grammar.for_world(text)
    after = faults.check(world.environment.step(at.state, action, seed))
    tokens = reply.usage.completion_tokens if reply.usage else 0
    parsed = world.grammar.parse(text)
    reward = {k: float(v) for k, v in after.reward.items()}
    if world.limits.token_price and tokens:
      price = world.limits.token_price * tokens
      reward['auxiliary'] = reward.get('auxiliary', 0.0) - price
    self.turns.append(
      types.Turn(
        *(text, after.observation, reward, at.state_key, int(at.agent)),
        num_tokens=tokens,
        num_calls=len(parsed.calls),
        valid=parsed.valid,
        cut=choice.finish_reason == 'length',
      )
    )
    self.turns = parts.paid(self.turns, after.others)
    self._tell(after)
    return after

  def _place(self, at: types.Transition) -> int:
    """Whose conversation goes on."""
    return int(at.agent) if self._agent.world.agents > 1 else 0

  def _tell(self, at: types.Transition) -> None:
    """Says to who moves next what is to be seen: first, or in answer."""
    says, system = at.observation.text, self._agent.system
    messages = self._messages.setdefault(self._place(at), [])
    if not messages:
      messages += [{'role': 'system', 'content': system}] * bool(system)
      messages.append({'role': 'user', 'content': says})
      return
    calls = messages[-1].get('tool_calls', ())
    messages += [
      {'role': 'tool', 'tool_call_id': call['id'], 'content': says}
      for call in calls
    ] or [{'role': self._agent.role, 'content': says}]


def _said(message: Any) -> dict[str, Any]:
  """A reply, as it is told again."""
  said: dict[str, Any] = {'role': 'assistant', 'content': message.content or ''}
  own = {'id': True, 'function': {'name', 'arguments'}}
  calls = [
    {'type': 'function'} | call.model_dump(include=own)
    for call in message.tool_calls or ()
  ]
  return said | ({'tool_calls': calls} if calls else {})


def _library() -> Any:
  """The official client.

  Raises:
    ValueError: it is not installed; names the extra.
  """
  try:
    import openai
  except ImportError as error:
    raise ValueError(
      "--endpoint wants the official client: pip install 'agentic_jax"
      f"[endpoint]'; {error.name} is missing."
    ) from error
  return openai


def _key(address: Address) -> str:
  """The key; a word that means nothing where none is set and none is named."""
  key = os.environ.get(address.key, '')
  if not key and address.key != Address(url='').key:
    raise ValueError(
      f'--endpoint: key={address.key} names an environment variable that is '
      f'not set; export {address.key}=...'
    )
  return key or 'none'


def _model_of(address: Address, served: Mapping[str, str]) -> str:
  """The name of the model.

  Raises:
    ValueError: it is not served, or not the only one and not named.
  """
  if address.model and (address.model in served or not served):
    return address.model
  if not address.model and len(served) == 1:
    return next(iter(served))
  close = difflib.get_close_matches(address.model, served, n=1)
  hint = f' Did you mean {close[0]!r}?' if close else ''
  raise ValueError(
    f'--endpoint={address.url} serves no model {address.model!r}.{hint} Name '
    f'one by ,model=NAME: there are {", ".join(list(served)[:20]) or "none"}.'
  )


def _explain(world: rollout.World, offers: bool) -> str:
  """The form of actions, for whoever was not trained on it."""
  grammar = world.grammar
  if offers:
    return (
      'Call one tool at a time. When you know the final answer, reply with it '
      'alone, without a call.'
    )
  call = f'<{grammar.tool}>ARGUMENT</{grammar.tool}>'
  if grammar.named:
    call = f'<{grammar.tool}>{{"name": NAME, "arguments": {{...}}}}'
    call += f'</{grammar.tool}>'
  ways = [f'{call} acts or calls the tool']
  if grammar.memory:
    ways.append(f'<{grammar.memory}>OPERATION</{grammar.memory}> uses memory')
  ways.append(f'<{grammar.answer}>TEXT</{grammar.answer}> is the final answer')
  told = [
    'Reply with one action a turn, in tags, and nothing after it: '
    f'{"; ".join(ways)}. You may think before it, within <{grammar.think}> and '
    f'</{grammar.think}>.'
  ]
  if world.tools:
    told.append(serve.Json().describe(world.tools).partition('\nTo call')[0])
  return '\n'.join(told)
