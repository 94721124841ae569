"""A run directory as `train.run` leaves it, with plausible numbers."""

import json
import math
import pathlib
import random
import re

ESTIMATORS = ('GRPO', 'DAPO', 'Token GAE', 'Turn-level GAE', 'GiGPO')
KINDS = ('modular', 'product', 'linear')


def _pieces(text_: str) -> list[str]:
  return re.findall(r'</?\w+>|.', text_, re.DOTALL)


def _turn(action, observation, reward, *, calls, valid=True):
  return {
    'action': action,
    'observation': observation,
    'reward': reward,
    'state_key': action[:8],
    'agent': 0,
    'num_tokens': len(_pieces(action)),
    'num_calls': calls,
    'valid': valid,
  }


def _segment(chance, prompt, turns, advantage):
  """Tokens of an append-all context; `advantage` None is an evaluation."""
  runs = [(f'<bos>{prompt}\n', -1)]
  for index, turn in enumerate(turns):
    runs.append((turn['action'], index))
    if index + 1 < len(turns):
      runs.append((f'<result>{turn["observation"]}</result>', -1))
  segment = {
    name: []
    for name in ('pieces', 'tokens', 'action_mask', 'turn', 'role', 'logprobs')
  }
  for words, turn in runs:
    role = 0
    for piece in _pieces(words):
      role = {'<think>': 1, '<tool>': 2, '<answer>': 0}.get(piece, role)
      acted = turn >= 0
      segment['pieces'].append(piece)
      segment['tokens'].append(ord(piece) if len(piece) == 1 else 300)
      segment['action_mask'].append(int(acted))
      segment['turn'].append(turn)
      segment['role'].append(role if acted else 0)
      logprob = -chance.expovariate(4.0) if acted else 0.0
      segment['logprobs'].append(logprob)
  if advantage is not None:
    segment['advantages'] = [
      advantage * chance.uniform(0.6, 1.0) if acted else 0.0
      for acted in segment['action_mask']
    ]
  return segment


def make_episode(chance, step, draw, member, skill, *, split, numbers=None):
  """An episode of tool maths that succeeds with probability `skill`."""
  random_numbers = [
    chance.randint(*ends) for ends in ((2, 99), (2, 30), (11, 97))
  ]
  a, b, m = numbers or random_numbers
  task = {
    'index': draw,
    'prompt': f'{a}^{b} mod {m}',
    'answer': str(pow(a, b, m)),
    'kind': chance.choice(KINDS),
    'difficulty': chance.randint(1, 3),
  }
  success = chance.random() < skill
  turns = []
  if success or chance.random() < skill:
    call = f'<think>use the tool</think><tool>pow({a}, {b}, {m})</tool>'
    turns.append(_turn(call, task['answer'], {'auxiliary': -0.05}, calls=1))
  answer = task['answer'] if success else str(chance.randint(0, m))
  turns.append(
    _turn(
      f'<think>say it</think><answer>{answer}</answer>',
      'correct' if success else 'wrong',
      {'final': float(success), 'auxiliary': -0.01},
      calls=0,
      valid=chance.random() < 0.97,
    )
  )
  truncated = not success and chance.random() < 0.15
  failure = 'hung' if not success and chance.random() < 0.05 else ''
  advantage = None
  if split == 'train':
    advantage = 1.2 if success else -0.9
  return {
    'step': step,
    'split': split,
    'task': task,
    'draw': draw,
    'member': member,
    'success': success,
    'reward': sum(sum(turn['reward'].values()) for turn in turns),
    'terminated': not truncated,
    'truncated': truncated,
    'failure': failure,
    'detail': 'no answer after 5 s' if failure else '',
    'turns': turns,
    'segments': [_segment(chance, task['prompt'], turns, advantage)],
  }


def _skill(step, steps):
  return 0.3 + 0.67 / (1 + math.exp(-12 * (step / steps - 0.4)))


def _metrics(chance, step, steps, evaluated):
  skill = _skill(step, steps)
  record = {'step': step}
  if step:
    noisy = min(1.0, max(0.0, skill + chance.gauss(0, 0.05)))
    record |= {
      'train/loss': chance.gauss(0, 0.02),
      'train/gradient_norm': chance.lognormvariate(-0.5, 0.4),
      'policy/entropy': 0.5 * math.exp(-2 * step / steps) + 0.05,
      'policy/kl': 1e-4 * 1.15**step,
      'policy/ratio_mismatch': chance.lognormvariate(-13, 0.4),
      'policy/clip_fraction': chance.uniform(0, 0.02),
      'rollout/success': noisy,
      'rollout/reward': noisy - 0.08,
      'rollout/reward_final': noisy,
      'rollout/reward_auxiliary': -0.08,
      'rollout/reward_social': 0.0,
      'rollout/turns': 1 + noisy,
      'rollout/calls': 0.2 + noisy,
      'rollout/tokens': 64 * 45,
      'rollout/action_tokens': 60 - 20 * noisy + chance.gauss(0, 2),
      'rollout/truncated': 0.1 * (1 - noisy),
      'rollout/invalid': 0.05 * (1 - noisy),
      'rollout/zero_spread_groups': noisy**3,
      'rollout/failures_hung': float(chance.random() < 0.1),
      'rollout/episodes': 64,
      'time/sample': 1.8 + chance.uniform(0, 0.3),
      'time/environment': 0.2,
      'time/train': 1.1,
      'time/step': 3.1,
      'time/tokens_per_second': chance.gauss(1500, 100),
      'custom/curriculum': step / steps,
      'tasks/difficulty': 1 + 2 * step / steps,
      'curriculum/stage': 1.0 + (2 * step > steps),
      'curriculum/success_stage_1': skill,
    }
  if evaluated:
    record |= {'evaluate/success': skill, 'evaluate/calls': 0.2 + skill}
    record |= {'evaluate/turns': 1 + skill, 'evaluate/tokens': 60 - 20 * skill}
    for kind in KINDS:
      record[f'evaluate/success_{kind}'] = skill
    for difficulty in (1, 2, 3):
      value = max(0.0, skill - 0.1 * (difficulty - 1) * (1 - skill))
      record[f'evaluate/success_difficulty_{difficulty}'] = value
    record['time/evaluate'] = 1.5
  return record


def write_lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def make_credit(chance):
  """The worked example: a group of eight, five estimators."""
  episodes = [
    make_episode(
      chance, 60, 0, member, member % 3 > 0, split='test', numbers=(3, 17, 41)
    )
    for member in range(8)
  ]
  for episode in episodes:
    segment = episode['segments'][0]
    sign = 1.0 if episode['success'] else -1.0
    credit = {}
    for place, name in enumerate(ESTIMATORS):
      credit[name] = [
        acted * sign * (1.0 if place < 2 else (-0.4 if role == 1 else 1.1))
        for acted, role in zip(segment['action_mask'], segment['role'])
      ]
    segment['credit'] = credit
  return {
    'prompt': '3^17 mod 41',
    'note': 'Sampled at temperature 1 after training.',
    'estimators': [
      {
        'name': name,
        'granularity': 'episode' if place < 2 else 'turn',
        'sentence': f'{name} gives the tool call what its outcome was worth.',
      }
      for place, name in enumerate(ESTIMATORS)
    ],
    'episodes': episodes,
  }


def _config(path, seed, steps, settings):
  return {
    'version': '0.1.0',
    'command': f'python experiments/quickstart.py --seed={seed}',
    'seed': seed,
    'commit': '0123abcd',
    'recipe': {
      'name': 'grpo',
      'settings': {'group_size': 8, 'clip_high': 0.28, **settings},
    },
    'model': {'name': 'tiny', 'layers': 4, 'width': 128, 'parameters': 823_000},
    'flags': {
      'environment': 'tool_maths',
      'steps': steps,
      'workdir': str(path),
    },
    'describe': {
      'horizon': '4 turns',
      'observability': 'full',
      'actions': ['text', 'tool'],
      'credit': 'episode',
    },
  }


def _write_steps(path, chance, steps):
  """Metrics of every step, and episodes of every tenth."""
  every = [k for k in range(steps + 1) if k % 10 == 0]
  write_lines(
    path / 'metrics.jsonl',
    [_metrics(chance, k, steps, k in every) for k in range(steps + 1)],
  )
  for step in every:
    skill = _skill(step, steps)
    held_out = [
      make_episode(chance, step, draw, 0, skill, split='test')
      for draw in range(120)
    ]
    write_lines(path / f'episodes/evaluate_{step:06d}.jsonl', held_out)
    train = [
      make_episode(chance, step, draw, member, skill, split='train')
      for draw in range(4)
      for member in range(8)
    ]
    if step:
      write_lines(path / f'episodes/step_{step:06d}.jsonl', train)


def _write_warm_start(path, chance):
  write_lines(
    path / 'warm_start/metrics.jsonl',
    [
      {
        'step': k,
        'train/loss': 3 * math.exp(-k / 80) + 0.3,
        'train/gradient_norm': 2 * math.exp(-k / 90) + 0.2,
        'time/train': 0.1,
        'time/step': 0.12,
        **({'evaluate/success': 0.3 * k / 300} if k in (0, 300) else {}),
      }
      for k in range(0, 301, 5)
    ],
  )
  (path / 'warm_start/config.json').write_text('{}')
  held_out = [
    make_episode(chance, 0, draw, 0, 0.0, split='test') for draw in range(120)
  ]
  write_lines(path / 'warm_start/episodes/evaluate_000000.jsonl', held_out)


def make_run(path: pathlib.Path, *, seed=0, steps=60, warm=True, **settings):
  """A run directory as `train.run` leaves it, with plausible numbers."""
  chance = random.Random(seed)
  path.mkdir(parents=True, exist_ok=True)
  config = _config(path, seed, steps, settings)
  (path / 'config.json').write_text(json.dumps(config))
  _write_steps(path, chance, steps)
  (path / 'credit.json').write_text(json.dumps(make_credit(chance)))
  summary = {
    'success_before': 0.0,
    'success_warm': _skill(0, steps),
    'success_after': _skill(steps, steps),
    'seconds_training': 214.0,
    'steps': steps,
    'tokens_sampled': 172_800,
    'recompilations_after_warmup': 0,
  }
  (path / 'summary.json').write_text(json.dumps(summary))
  if warm:
    _write_warm_start(path, chance)
  return path
