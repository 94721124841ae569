"""The tasks of credit.py as plain loops in torch, as one would write them."""

from collections.abc import Callable
from typing import Any

_DISCOUNT, _LAMBDA = 0.99, 0.95


def torch_tasks(torch: Any) -> dict[str, Callable]:
  """Loops over time that skip what is masked, and loops over groups."""

  def gae(batch, lambda_=_LAMBDA):
    rewards, values, mask = batch['rewards'], batch['values'], batch['mask']
    ahead = running = torch.zeros(rewards.shape[0])
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
      inside = mask[:, t]
      delta = rewards[:, t] + _DISCOUNT * ahead - values[:, t]
      new = delta + _DISCOUNT * lambda_ * running
      running = torch.where(inside, new, running)
      ahead = torch.where(inside, values[:, t], ahead)
      found[:, t] = running
    found = torch.where(mask, found, 0.0)
    return found, torch.where(mask, found + values, 0.0)

  def returns(batch):
    rewards, mask = batch['rewards'], batch['mask']
    running = torch.zeros(rewards.shape[0])
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
      new = rewards[:, t] + _DISCOUNT * running
      running = torch.where(mask[:, t], new, running)
      found[:, t] = running
    return torch.where(mask, found, 0.0)

  def vtrace(batch):
    rewards, values, mask = batch['rewards'], batch['values'], batch['mask']
    capped = torch.clamp(batch['ratio'], max=1.0)
    ahead = target = running = torch.zeros(rewards.shape[0])
    found, targets = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
      inside, rho = mask[:, t], capped[:, t]
      delta = rho * (rewards[:, t] + _DISCOUNT * ahead - values[:, t])
      new = delta + _DISCOUNT * rho * running
      found[:, t] = rho * (rewards[:, t] + _DISCOUNT * target - values[:, t])
      running = torch.where(inside, new, running)
      ahead = torch.where(inside, values[:, t], ahead)
      target = torch.where(inside, values[:, t] + new, target)
      targets[:, t] = target
    return torch.where(mask, found, 0.0), torch.where(mask, targets, 0.0)

  def by_group(of_peers):
    def run(batch):
      scores, group = batch['scores'], batch['group']
      found = torch.zeros_like(scores)
      for g in range(int(group.max()) + 1):
        own = group == g
        if int(own.sum()) > 1:
          found[own] = of_peers(scores[own])
      return torch.where(batch['mask'], found[:, None], 0.0)

    return run

  def leave_one_out(x):
    return x - (x.sum() - x) / (len(x) - 1)

  return {
    'discounted_returns': returns,
    'lambda_returns': lambda batch: gae(batch)[1],
    'gae': gae,
    'gae, lambda of rows': lambda batch: gae(batch, batch['row_lambda']),
    'vtrace': vtrace,
    'centre': by_group(lambda x: x - x.mean()),
    'standardise': by_group(lambda x: (x - x.mean()) / (x.std() + 1e-6)),
    'leave_one_out': by_group(leave_one_out),
  }
