"""REINFORCE on a corridor: walk to the right end, by a policy that learns from its own episodes."""
import argparse
from collections import deque
from itertools import count

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.distributions import Categorical

parser = argparse.ArgumentParser(description='PyTorch REINFORCE example')
parser.add_argument('--gamma', type=float, default=0.99)
parser.add_argument('--seed', type=int, default=543)
parser.add_argument('--episodes', type=int, default=80)
args = parser.parse_args()


class Corridor:
    """Cells 0 to 6, start in the middle; the right end gives 1, each step costs 0.05."""

    def reset(self):
        self.cell, self.steps = 3, 0
        return self._observe()

    def _observe(self):
        state = np.zeros(7, dtype=np.float32)
        state[self.cell] = 1
        return state

    def step(self, action):
        self.cell += 1 if action else -1
        self.steps += 1
        done = self.cell in (0, 6) or self.steps >= 40
        return self._observe(), (1.0 if self.cell == 6 else 0.0) - 0.05, done


env = Corridor()
torch.manual_seed(args.seed)


class Policy(nn.Module):
    def __init__(self):
        super(Policy, self).__init__()
        self.affine1 = nn.Linear(7, 32)
        self.dropout = nn.Dropout(p=0.1)
        self.affine2 = nn.Linear(32, 2)
        self.saved_log_probs = []
        self.rewards = []

    def forward(self, x):
        x = self.affine1(x)
        x = self.dropout(x)
        x = F.relu(x)
        action_scores = self.affine2(x)
        return F.softmax(action_scores, dim=1)


policy = Policy()
optimizer = optim.Adam(policy.parameters(), lr=1e-2)
eps = np.finfo(np.float32).eps.item()


def select_action(state):
    state = torch.from_numpy(state).float().unsqueeze(0)
    probs = policy(state)
    m = Categorical(probs)
    action = m.sample()
    policy.saved_log_probs.append(m.log_prob(action))
    return action.item()


def finish_episode():
    R = 0
    policy_loss = []
    returns = deque()
    for r in policy.rewards[::-1]:
        R = r + args.gamma * R
        returns.appendleft(R)
    returns = torch.tensor(returns)
    if len(returns) > 1:
        returns = (returns - returns.mean()) / (returns.std() + eps) + returns.mean()
    for log_prob, R in zip(policy.saved_log_probs, returns):
        policy_loss.append(-log_prob * R)
    optimizer.zero_grad()
    policy_loss = torch.cat(policy_loss).sum()
    policy_loss.backward()
    optimizer.step()
    del policy.rewards[:]
    del policy.saved_log_probs[:]


def main():
    wins = deque(maxlen=20)
    for i_episode in range(args.episodes):
        state, ep_reward = env.reset(), 0
        for t in count(1):
            action = select_action(state)
            state, reward, done = env.step(action)
            policy.rewards.append(reward)
            ep_reward += reward
            if done:
                break
        wins.append(ep_reward > 0.5)
        finish_episode()
        if i_episode % 20 == 0:
            print('Episode {}\tLast reward: {:.2f}\tWins: {}'.format(i_episode, ep_reward, sum(wins)))
    assert sum(wins) >= 15, sum(wins)
    print("passed")


if __name__ == '__main__':
    main()
