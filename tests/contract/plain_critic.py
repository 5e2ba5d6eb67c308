"""What the critic's update must equal, token by token and in plain PyTorch: values, GAE, the clipped value loss.

--gamma 0.97 --lambd 0.9 --value_clip 0.1, as GAE says.
"""

from __future__ import annotations

import torch
from plain import Loss, logprobs
from policies import small_model
from safetensors.torch import load_file

GAE = "--advantage_estimator gae --lambd 0.9 --gamma 0.97 --value_clip 0.1"


class PlainCritic(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.model, self.score = small_model(7).model, torch.nn.Linear(64, 1, bias=False)
        self.score.weight.data = load_file(folder / "model.safetensors")["score.weight"]

    def values(self, sample) -> torch.Tensor:
        """[response length]; the first is read at the last token of the prompt."""
        hidden = self.model(input_ids=torch.tensor([[*sample.prompt, *sample.response]])).last_hidden_state[0]
        return self.score(hidden[len(sample.prompt) - 1 : -1])[:, 0]


def valid(samples, rows):
    return [row for row in rows if samples[row].reward == samples[row].reward]


def plain_gae(samples, values, kl, gamma, lambd):
    """Whitened advantages and returns of every valid sample, token by token; `kl` is taken from each token's reward."""
    raw, returns = {}, {}
    for row in valid(samples, range(len(samples))):
        v, advantage, found = values[row].double().tolist(), 0.0, []
        for t in reversed(range(len(v))):
            reward = (samples[row].reward if t == len(v) - 1 else 0.0) - float(kl[row][t])
            after = v[t + 1] if t + 1 < len(v) else 0.0
            advantage = reward + gamma * after - v[t] + gamma * lambd * advantage
            found.insert(0, advantage)
        raw[row] = torch.tensor(found, dtype=torch.float64)
        returns[row] = (raw[row] + torch.tensor(v, dtype=torch.float64)).float()
    everything = torch.cat(list(raw.values()))
    mean, std = everything.mean(), everything.std(correction=0)
    return {row: ((found - mean) / std).float() for row, found in raw.items()}, returns


def plain_value_loss(critic, samples, rows, old, returns, clip):
    total, count = 0.0, sum(len(samples[row].response) for row in valid(samples, rows))
    for row in valid(samples, rows):
        v = critic.values(samples[row])
        bounded = old[row] + (v - old[row]).clamp(-clip, clip)
        worst = torch.maximum((v - returns[row]) ** 2, (bounded - returns[row]) ** 2)
        total = total + worst.sum() / (2 * count)
    return total


def plain_turn(policy, critic, reference, samples, parts, *, beta, step_policy, step_critic):
    """One turn of the loop; the losses and norms of the critic's steps.

    step_policy, step_critic: of (model, loss), each takes an optimizer step; None for a policy that is frozen."""
    with torch.no_grad():
        old_values = [critic.values(sample) for sample in samples]
        old, fixed = ([logprobs(model, sample, 0.8) for sample in samples] for model in (policy, reference))
    kl = [beta * (a - b).double() for a, b in zip(old, fixed, strict=True)]
    advantages, returns = plain_gae(samples, old_values, kl, 0.97, 0.9)
    scale = [advantages.get(row) for row in range(len(samples))]
    loss, seen = Loss("token-mean", 0.8, 8, old=old), []
    for part in parts:
        if step_policy is not None:
            step_policy(policy, loss(policy, samples, scale, part.rows))
        value_loss = plain_value_loss(critic, samples, part.rows, old_values, returns, 0.1)
        seen.append((value_loss.item(), step_critic(critic, value_loss)))
    return seen
