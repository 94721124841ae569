"""The flag --sample of scripts that sample and do not train."""

from collections.abc import Sequence
import difflib

from absl import flags

from agentic_jax import recipe as recipe_lib

flags.DEFINE_multi_string(
  'sample',
  [],
  'How actions are sampled, name=value, with names of '
  f'{", ".join(recipe_lib.Sampling._fields)}, as in top_p=0.9. May be '
  'repeated, which adds up for forbidden. By default greedy.',
)


def chosen(base: recipe_lib.Sampling) -> recipe_lib.Sampling:
  """What --sample says, beside settings that are made greedy."""
  return parse(flags.FLAGS.sample, base._replace(temperature=0.0))


def parse(
  assignments: Sequence[str], base: recipe_lib.Sampling
) -> recipe_lib.Sampling:
  """How actions are sampled, from texts such as 'top_p=0.9'.

  Args:
    assignments: what differs from `base`.
    base: the settings to begin with.

  Raises:
    ValueError: a name is unknown, or a value makes no sense.
  """
  found, forbidden = base, list[str]()
  for text in assignments:
    name, _, value = text.partition('=')
    if name not in found._fields:
      close = difflib.get_close_matches(name, found._fields, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      raise ValueError(
        f'--sample={text!r}: sampling has no setting {name!r}.{hint} There are '
        f'{", ".join(found._fields)}.'
      )
    if name == 'forbidden':
      forbidden.append(value)
      found = found._replace(forbidden=tuple(forbidden))
      continue
    kind = type(getattr(found, name))
    try:
      found = found._replace(**{name: kind(value)})
    except ValueError as error:
      raise ValueError(
        f'--sample={text!r}: wanted a number such as {getattr(found, name)}, '
        f'got {value!r}.'
      ) from error
  recipe_lib.check_sampling(found)
  return found
