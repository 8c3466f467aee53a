"""Fit a sine: a polynomial by LBFGS, and a small network by Adam with a scheduler and a checkpoint."""
from __future__ import print_function

import argparse
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR


class Polynomial(nn.Module):
    def __init__(self, degree):
        super(Polynomial, self).__init__()
        self.coefficients = nn.Parameter(torch.zeros(degree + 1))

    def forward(self, x):
        x = x / math.pi
        powers = torch.stack([x**i for i in range(self.coefficients.numel())], dim=-1)
        return powers @ self.coefficients


def fit_polynomial(x, y):
    model = Polynomial(5)
    optimizer = optim.LBFGS(model.parameters(), lr=0.8, max_iter=20)
    for i in range(10):
        def closure():
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
    with torch.no_grad():
        return F.mse_loss(model(x), y).item()


def fit_network(x, y, epochs, path):
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    criterion = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    scheduler = StepLR(optimizer, step_size=100, gamma=0.5)
    for epoch in range(epochs):
        optimizer.zero_grad()
        loss = criterion(model(x.unsqueeze(1)).squeeze(1), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    torch.save({"epoch": epochs, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    checkpoint = torch.load(path, map_location="cpu")
    restored = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    restored.load_state_dict(checkpoint["model"])
    restored.eval()
    with torch.no_grad():
        assert torch.equal(restored(x.unsqueeze(1)), model(x.unsqueeze(1)))
    print("lr after {} epochs: {:.4f}".format(checkpoint["epoch"], optimizer.param_groups[0]["lr"]))
    return criterion(model(x.unsqueeze(1)).squeeze(1), y).item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", default=".")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.linspace(-math.pi, math.pi, 200, device=device)
    y = torch.sin(x)
    polynomial = fit_polynomial(x, y)
    network = fit_network(x, y, args.epochs, os.path.join(args.out, "model.pt"))
    print("polynomial {:.2e} network {:.2e}".format(polynomial, network))
    assert polynomial < 1e-3 and network < 1e-2
    print("passed")
