"""Every metric: its name, its meaning, its unit."""

from collections.abc import Mapping
import difflib
from typing import NamedTuple


class Definition(NamedTuple):
  """What a number means."""

  meaning: str
  unit: str


# A name in <> stands for any word. Names of wall-clock time, and nothing else
# that differs between two runs of one command, begin with time/.
DEFINITIONS: Mapping[str, Definition] = {
  'train/loss': Definition(
    'sum over the terms of the loss, weighted, mean over the updates of a step',
    'nats',
  ),
  'train/learning_rate': Definition('learning rate of the last update', '1'),
  'train/loss_<term>': Definition('one term of the loss, weighted', 'nats'),
  'train/gradient_norm': Definition(
    'global norm of the gradient before clipping', '1'
  ),
  'policy/entropy': Definition(
    'entropy of the policy, mean over action tokens', 'nats'
  ),
  'policy/kl': Definition(
    'divergence of the policy from the reference, mean over action tokens',
    'nats',
  ),
  'policy/ratio_mismatch': Definition(
    'mean over sampled action tokens of |log(policy / sampler)| before the '
    'first update on a batch: 0 up to rounding when the batch is on-policy',
    'nats',
  ),
  'policy/clip_fraction': Definition(
    'share of action tokens at which the clipped surrogate has no gradient',
    'share',
  ),
  'prefix_tree/fitting': Definition(
    'share of the microbatches that found room in their prefix tree; the '
    'others are computed row by row',
    'share',
  ),
  'prefix_tree/wanted': Definition(
    'tokens of the fullest microbatch, those that begin alike counted once, in '
    'units of the entries of its rows: --prefix_tree wants this and, where '
    'groups differ in size, more',
    'share',
  ),
  'rollout/success': Definition(
    'share of episodes whose final reward is at least one half', 'share'
  ),
  'rollout/reward': Definition(
    'sum of all rewards of an episode, mean over episodes', 'reward'
  ),
  'greedy/success': Definition(
    'share of the greedy members of the groups that solved their task', 'share'
  ),
  'greedy/reward': Definition(
    'sum of all rewards of a greedy member, mean over them', 'reward'
  ),
  'greedy/tokens': Definition(
    'action tokens of the greedy members in this step, besides rollout/tokens',
    'tokens',
  ),
  'greedy/failures': Definition(
    'greedy members that a fault of their environment ended', 'episodes'
  ),
  'demonstrations/success': Definition(
    'share of the demonstrations whose final reward is at least one half',
    'share',
  ),
  'demonstrations/reward': Definition(
    'sum of all rewards of a demonstration, mean over them', 'reward'
  ),
  'demonstrations/episodes': Definition(
    'demonstrations played beside the sampled episodes', 'episodes'
  ),
  'demonstrations/failures': Definition(
    'demonstrations among them that ended in a fault', 'episodes'
  ),
  'policy/demonstrated': Definition(
    'share of the action tokens that demonstrations have', 'share'
  ),
  'rollout/reward_<component>': Definition(
    'sum of one component of the reward, mean over episodes', 'reward'
  ),
  'rollout/turns': Definition('turns of an episode, mean', 'turns'),
  'rollout/calls': Definition('tool calls of an episode, mean', 'calls'),
  'rollout/tokens': Definition(
    'action tokens sampled in this step, each counted once', 'tokens'
  ),
  'rollout/accepted_tokens': Definition(
    'tokens that a pass of the policy yields to a slot, mean over passes, with '
    'speculation: at least 1, and at most one more than are drafted',
    'tokens',
  ),
  'rollout/forks': Definition(
    'episodes that began at a turn of another, trained on or not', 'episodes'
  ),
  'rollout/action_tokens': Definition(
    'action tokens of an episode, mean', 'tokens'
  ),
  'rollout/truncated': Definition(
    'share of episodes that a limit ended', 'share'
  ),
  'rollout/invalid': Definition(
    'share of turns whose action does not parse', 'share'
  ),
  'rollout/zero_spread_groups': Definition(
    'share of groups whose episodes all have one reward', 'share'
  ),
  'rollout/groups_resampled': Definition(
    'groups that the recipe rejected', 'groups'
  ),
  'rollout/groups_missing': Definition(
    'groups short of a full batch, the recipe having rejected the others',
    'groups',
  ),
  'tasks/difficulty': Definition(
    'difficulty of the tasks drawn in this step, mean over groups', '1'
  ),
  'tasks/seen': Definition(
    'tasks of which an episode that began at a reset has come to an end, '
    'since the run began',
    'tasks',
  ),
  'tasks/never': Definition(
    'share of the tasks seen whose latest 32 episodes all failed', 'share'
  ),
  'tasks/always': Definition(
    'share of the tasks seen whose latest 32 episodes all succeeded', 'share'
  ),
  'window/skipped': Definition(
    'how often a task was passed over so far, its success being outside of '
    'the window',
    '1',
  ),
  'window/empty': Definition(
    'draws so far for which no task was within the window', 'draws'
  ),
  'curriculum/stage': Definition('the present stage, from 1', 'stage'),
  'curriculum/steps': Definition('how long it has lasted', 'steps'),
  'curriculum/stuck': Definition(
    '1 if it has lasted longer than is allowed, and is not the last', '1'
  ),
  'curriculum/forgotten': Definition(
    'earlier stages whose latest episodes succeed too seldom', 'stages'
  ),
  'curriculum/success_stage_<n>': Definition(
    'success of the latest episodes of one stage', 'share'
  ),
  'restart/buffer': Definition(
    'turns of earlier episodes at which others may begin', 'turns'
  ),
  'restart/share': Definition(
    'share of the episodes that began within an earlier one', 'share'
  ),
  'restart/mended': Definition(
    'share of those begun in a failed episode that solve its task', 'share'
  ),
  'restart/spoiled': Definition(
    'share of those begun in a successful episode that fail', 'share'
  ),
  'ledger/seen': Definition(
    'tasks drawn since the run began, over all its restarts: the sum of those '
    'finished, rejected and failed',
    'tasks',
  ),
  'ledger/finished': Definition('tasks whose group was trained on', 'tasks'),
  'ledger/rejected': Definition(
    'tasks whose group the recipe rejected', 'tasks'
  ),
  'ledger/failed': Definition('tasks of which every episode failed', 'tasks'),
  'ledger/batches_in_flight': Definition(
    'batches admitted for sampling after this one; their tasks are not counted '
    'as seen yet',
    'batches',
  ),
  'rollout/staleness': Definition(
    'batches that were trained on since the parameters sampled this one; where '
    'they change between turns, a mean over its turns',
    'batches',
  ),
  'rollout/swaps': Definition(
    'how often other parameters were loaded between turns', '1'
  ),
  'rollout/rebuilt_tokens': Definition(
    'tokens that were read again because the parameters had changed', 'tokens'
  ),
  'rollout/stale_tokens': Definition(
    'tokens sampled from a cache that older parameters wrote; no parameters '
    'reproduce their log-probabilities',
    'tokens',
  ),
  'rollout/cut_actions': Definition(
    'share of turns whose action the token limit ended', 'share'
  ),
  'rollout/failures_long': Definition(
    'episodes whose prompt leaves no room for an action', 'episodes'
  ),
  'rollout/failures_raised': Definition(
    'episodes whose environment raised an error', 'episodes'
  ),
  'rollout/failures_hung': Definition(
    'episodes whose environment answered too late', 'episodes'
  ),
  'rollout/failures_garbage': Definition(
    'episodes whose environment returned the wrong type', 'episodes'
  ),
  'serve/breaks': Definition(
    'times that clients came with another history, in the sessions of a step',
    'breaks',
  ),
  'serve/greedy_turns': Definition(
    'turns of a step at a temperature of about 0, not trained on', 'turns'
  ),
  'serve/stale_tokens': Definition(
    'share of action tokens that earlier parameters sampled', 'share'
  ),
  'serve/sessions_open': Definition(
    'sessions that no reward has ended yet', 'sessions'
  ),
  'serve/sessions_dropped': Definition(
    'sessions dropped so far, unused for long or too many', 'sessions'
  ),
  'serve/turns_given_up': Definition(
    'turns so far whose clients left before they ended', 'turns'
  ),
  'rollout/episodes': Definition('episodes of this step', 'episodes'),
  'evaluate/success': Definition(
    'share of held-out tasks solved, greedy decoding', 'share'
  ),
  'evaluate/success_<kind>': Definition(
    'share of held-out tasks of one kind solved', 'share'
  ),
  'evaluate/success_difficulty_<d>': Definition(
    'share of held-out tasks of one difficulty solved', 'share'
  ),
  'evaluate/reward': Definition('reward of a held-out episode, mean', 'reward'),
  'evaluate/reward_<component>': Definition(
    'one component of the reward of a held-out episode, mean', 'reward'
  ),
  'evaluate/calls': Definition('tool calls of a held-out episode', 'calls'),
  'evaluate/turns': Definition('turns of a held-out episode', 'turns'),
  'evaluate/tokens': Definition(
    'action tokens of a held-out episode', 'tokens'
  ),
  'validation/success': Definition(
    'share of validation tasks solved, greedy decoding', 'share'
  ),
  'validation/success_<kind>': Definition(
    'share of validation tasks of one kind solved', 'share'
  ),
  'validation/success_difficulty_<d>': Definition(
    'share of validation tasks of one difficulty solved', 'share'
  ),
  'validation/reward': Definition(
    'reward of a validation episode, mean', 'reward'
  ),
  'validation/reward_<component>': Definition(
    'one component of the reward of a validation episode, mean', 'reward'
  ),
  'validation/calls': Definition('tool calls of a validation episode', 'calls'),
  'validation/turns': Definition('turns of a validation episode', 'turns'),
  'validation/tokens': Definition(
    'action tokens of a validation episode', 'tokens'
  ),
  'evaluate/pair_accuracy': Definition(
    'how often a reward model scores the best sampled episode of a held-out '
    'task above its worst',
    'share',
  ),
  'evaluate/pairs': Definition('held-out tasks with such a pair', 'pairs'),
  'validation/pair_accuracy': Definition(
    'the same of validation tasks', 'share'
  ),
  'validation/pairs': Definition('validation tasks with such a pair', 'pairs'),
  'probe/probes': Definition(
    'questions put to the policy outside of what it sampled, those that are '
    'alike counted once',
    'probes',
  ),
  'probe/logprob': Definition(
    'log-probability of a token that a probe asks about, mean', 'nats'
  ),
  'probe/reward': Definition(
    "what the probes add to an episode's reward, mean", 'reward'
  ),
  'time/probe': Definition('making and answering probes', 'seconds'),
  'time/sample': Definition('sampling episodes', 'seconds'),
  'time/train': Definition('scores, credit and updates', 'seconds'),
  'time/evaluate': Definition('evaluation', 'seconds'),
  'time/step': Definition('the whole step', 'seconds'),
  'time/environment': Definition(
    'waiting for environments while no slot could decode', 'seconds'
  ),
  'time/parked': Definition(
    'episodes that gave their slot up while their environment was slow',
    'episodes',
  ),
  'time/prefilled_tokens': Definition(
    'tokens of prompts and observations that were read, not copied', 'tokens'
  ),
  'time/tokens_per_second': Definition(
    'action tokens sampled per second of sampling', 'tokens/second'
  ),
}


def definition(
  name: str, definitions: Mapping[str, Definition] = DEFINITIONS
) -> Definition:
  """The definition of a metric.

  Args:
    name: such as 'rollout/success'.
    definitions: where to look. A key that ends in <word> stands for all names
      that begin like it.

  Raises:
    ValueError: there is none; the message has the nearest names.
  """
  if name in definitions:
    return definitions[name]
  fitting = [
    key
    for key in definitions
    if key.endswith('>')
    and name.startswith(key[: key.index('<')])
    and len(name) > key.index('<')
  ]
  if fitting:
    return definitions[max(fitting, key=lambda key: key.index('<'))]
  near = difflib.get_close_matches(name, definitions, n=3, cutoff=0.4)
  raise ValueError(
    f'Every metric wants a definition; {name!r} has none. Did you mean '
    f'{near or sorted(definitions)}? Add it to metrics.DEFINITIONS, or pass '
    'Writer(..., definitions=...).'
  )
