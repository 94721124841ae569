"""How actions are sampled, as settings."""

from typing import NamedTuple


class Sampling(NamedTuple):
  """How actions are sampled; `sampling.controls` has the meaning of each.

  Attributes:
    temperature: replayed in training.
    top_k: only the likeliest tokens, so many; 0 is off.
    top_p: only the likeliest tokens, of this probability together; 1 is off.
    min_p: only tokens at least so likely relative to the likeliest; 0 is off.
    repetition_penalty: of tokens that the segment has already; 1 is off.
    forbidden: texts of single tokens that are never sampled.
    forced: text with which every action begins.
    grammar: '' is any text; 'actions' is well-formed actions of the world's
      tag grammar; the path of a JSON schema is these, with calls whose
      arguments the schema allows.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0
  forbidden: tuple[str, ...] = ()
  forced: str = ''
  grammar: str = ''

  @property
  def cuts(self) -> bool:
    """Whether there are tokens that may not be drawn."""
    plain = Sampling(self.temperature)
    return self._replace(repetition_penalty=1.0) != plain


def check(sampling: Sampling) -> None:
  """Refuses settings that mean nothing.

  Raises:
    ValueError: one is out of range.
  """
  ranges = {
    'temperature': (sampling.temperature >= 0, '0, which is greedy, or more'),
    'top_k': (sampling.top_k >= 0, '1 or more, or 0 for off'),
    'top_p': (0 < sampling.top_p <= 1, 'above 0 and below 1, or 1 for off'),
    'min_p': (0 <= sampling.min_p <= 1, 'above 0 and at most 1, or 0 for off'),
    'repetition_penalty': (
      sampling.repetition_penalty > 0,
      'above 0, such as 1.2, or 1 for off',
    ),
  }
  for name, (good, wanted) in ranges.items():
    if not good:
      raise ValueError(
        f'{name}={getattr(sampling, name)} of sampling is out of range; use '
        f'{wanted}.'
      )


def check_trainable(sampling: Sampling, reads_vocabulary: bool) -> None:
  """Refuses what training cannot replay.

  Args:
    sampling: of a recipe.
    reads_vocabulary: whether the recipe reads the logits of all tokens.

  Raises:
    ValueError: names the setting.
  """
  check(sampling)
  if sampling.temperature <= 0:
    raise ValueError(
      f'temperature={sampling.temperature} cannot be trained on: greedy '
      'actions have no gradient; use a temperature above 0, such as 1.'
    )
  if sampling.repetition_penalty != 1:
    raise ValueError(
      f'repetition_penalty={sampling.repetition_penalty} cannot be trained on: '
      'training replays temperature and the sets of tokens that top_k, top_p, '
      'min_p, forbidden, forced and grammar leave, but no change of logits. '
      'Leave it out of --set; evaluate.py and chat.py take it by '
      '--sample=repetition_penalty=1.2.'
    )
  if sampling.cuts and reads_vocabulary:
    raise ValueError(
      'This recipe reads the logits of the whole vocabulary (a distance from a '
      'teacher, say), of which '
      f'{", ".join(_changed(sampling))} would leave it a part; leave that out '
      'of --set, or take a recipe of the sampled tokens, such as '
      '--recipe=grpo.'
    )


def _changed(sampling: Sampling) -> list[str]:
  """The settings that are on, besides temperature."""
  return [
    name
    for name, default in Sampling._field_defaults.items()
    if name != 'temperature' and getattr(sampling, name) != default
  ]
