"""Limited-memory BFGS."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import zeros
from graphc.frontend.joining import cat
from graphc.frontend.matrices import dot
from graphc.frontend.modes import enable_grad, no_grad
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.pointwise import abs
from graphc.frontend.tensor import Tensor

Point = tuple[float, float, Tensor, float]
"""A place on the search line: step length, value, gradient, slope along the line."""


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of the gradient (Nocedal and Wright, algorithms 7.4, 7.5).

    `step` needs a closure that computes the loss and its gradients anew. `line_search_fn` is None (steps of length lr) or
    "strong_wolfe".

    ArgumentError for groups of parameters, and for another line search.

    >>> x = graphc.tensor([3.0], requires_grad=True)
    >>> optimizer = graphc.optim.LBFGS([x], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((x - 1) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)
    >>> graphc.allclose(x, graphc.ones(1))
    True
    """

    def __init__(self, params: Iterable[Any], lr: float = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter, "max_eval": max_eval, "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change, "history_size": history_size, "line_search_fn": line_search_fn})
        if len(self.param_groups) != 1:
            raise ArgumentError("LBFGS doesn't support per-parameter options (parameter groups)")
        if line_search_fn not in (None, "strong_wolfe"):
            raise ArgumentError(f"LBFGS: line_search_fn={line_search_fn!r}", expected="None or 'strong_wolfe'")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def _flat_grad(self) -> Tensor:
        parts = []
        for p in self._params:
            grad = p._get_grad()
            parts.append(zeros(p.numel(), dtype=p.dtype) if grad is None else grad.reshape(-1))
        return cat(parts)

    def _move(self, step: float, direction: Tensor) -> None:
        offset = 0
        for p in self._params:
            count = p.numel()
            p.add_(direction[offset : offset + count].view(p.shape) * step)
            offset += count

    def _evaluate(
        self, closure: Callable[[], Any], start: list[Tensor], direction: Tensor, step: float
    ) -> tuple[float, Tensor]:
        """Loss and gradient at a place on the line; the parameters are put back."""
        self._move(step, direction)
        with enable_grad():
            loss = float(closure())
        grad = self._flat_grad()
        for p, value in zip(self._params, start):
            p.copy_(value)
        return loss, grad

    @no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to `max_iter` quasi-Newton steps; returns the first loss."""
        if closure is None:
            raise ArgumentError("LBFGS.step: a closure is needed that computes the loss and its gradients")
        group = self.param_groups[0]
        state = self.state[self._params[0]]
        with enable_grad():
            first = closure()
        loss = float(first)
        state["func_evals"] = state.get("func_evals", 0) + 1
        state.setdefault("n_iter", 0)
        evaluations, iterations = 1, 0
        grad = self._flat_grad()
        if abs(grad).max().item() <= group["tolerance_grad"]:
            return first
        while iterations < group["max_iter"]:
            iterations += 1
            state["n_iter"] += 1
            direction = self._direction(state, grad, group["history_size"])
            state["prev_flat_grad"], before = grad.clone(), loss
            state["prev_loss"] = loss
            step = min(1.0, 1.0 / abs(grad).sum().item()) * group["lr"] if state["n_iter"] == 1 else group["lr"]
            slope = dot(grad, direction).item()
            if slope > -group["tolerance_change"]:
                break
            if group["line_search_fn"] is not None:
                start = [p.clone() for p in self._params]
                evaluate = functools.partial(self._evaluate, closure, start, direction)
                loss, grad, step, used = strong_wolfe(evaluate, step, direction, loss, grad, slope,
                                                       most=group["max_eval"] - evaluations)
                self._move(step, direction)
            else:
                self._move(step, direction)
                used = 0
                if iterations != group["max_iter"]:
                    with enable_grad():
                        loss = float(closure())
                    grad, used = self._flat_grad(), 1
            state["d"], state["t"] = direction, step
            evaluations += used
            state["func_evals"] += used
            if (evaluations >= group["max_eval"] or abs(grad).max().item() <= group["tolerance_grad"]
                    or abs(direction * step).max().item() <= group["tolerance_change"]
                    or -group["tolerance_change"] < loss - before < group["tolerance_change"]):
                break
        return first

    def _direction(self, state: dict[str, Any], grad: Tensor, history: int) -> Tensor:
        """The product of the inverse Hessian's estimate with -grad, by the two loops over past changes."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return -grad
        change = grad - state["prev_flat_grad"]
        moved = state["d"] * state["t"]
        curvature = dot(change, moved).item()
        if curvature > 1e-10:
            if len(state["old_dirs"]) == history:
                for key in ("old_dirs", "old_stps", "ro"):
                    state[key].pop(0)
            state["old_dirs"].append(change)
            state["old_stps"].append(moved)
            state["ro"].append(1.0 / curvature)
            state["H_diag"] = curvature / dot(change, change).item()
        changes, moves, inverse = state["old_dirs"], state["old_stps"], state["ro"]
        weights = [0.0] * len(changes)
        q = -grad
        for i in reversed(range(len(changes))):
            weights[i] = dot(moves[i], q).item() * inverse[i]
            q = q - changes[i] * weights[i]
        r = q * state["H_diag"]
        for i in range(len(changes)):
            r = r + moves[i] * (weights[i] - dot(changes[i], r).item() * inverse[i])
        return r


def _cubic(
    x1: float, f1: float, g1: float, x2: float, f2: float, g2: float, bounds: tuple[float, float] | None = None
) -> float:
    """The minimum of the cubic through two points with two slopes, inside the bounds."""
    low, high = bounds if bounds is not None else (min(x1, x2), max(x1, x2))
    if x1 == x2:
        return min(max(x1, low), high)
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if not square >= 0:  # nan too: an infinite loss has no cubic
        return (low + high) / 2.0
    d2 = square**0.5
    if x1 > x2:
        x1, g1, x2, g2 = x2, g2, x1, g1
    divisor = g2 - g1 + 2 * d2
    if not divisor:
        return (low + high) / 2.0
    return min(max(x2 - (x2 - x1) * ((g2 + d2 - d1) / divisor), low), high)


def strong_wolfe(
    evaluate: Callable[[float], tuple[float, Tensor]], step: float, direction: Tensor, value: float, grad: Tensor, slope: float,
    c1: float = 1e-4, c2: float = 0.9, tolerance: float = 1e-9, most: int = 25,
) -> tuple[float, Tensor, float, int]:
    """A step length with enough decrease and a flat enough slope (Nocedal and Wright, algorithms 3.5 and 3.6).

    Returns the loss, the gradient and the length found, and how often the loss was computed.
    """
    largest = abs(direction).max().item()
    f_new, g_new = evaluate(step)
    count = 1
    s_new = dot(g_new, direction).item()
    previous: Point = (0.0, value, grad, slope)
    bracket: list[Point] | None = None
    done = False
    for iteration in range(most):
        if f_new > value + c1 * step * slope or (iteration > 1 and f_new >= previous[1]):
            bracket = [previous, (step, f_new, g_new.clone(), s_new)]
            break
        if _magnitude(s_new) <= -c2 * slope:
            bracket, done = [(step, f_new, g_new, s_new)], True
            break
        if s_new >= 0:
            bracket = [previous, (step, f_new, g_new.clone(), s_new)]
            break
        now = (step, f_new, g_new.clone(), s_new)
        step = _cubic(previous[0], previous[1], previous[3], step, f_new, s_new,
                      (step + 0.01 * (step - previous[0]), step * 10))
        previous = now
        f_new, g_new = evaluate(step)
        count += 1
        s_new = dot(g_new, direction).item()
    if bracket is None:
        bracket = [(0.0, value, grad, slope), (step, f_new, g_new, s_new)]
    stuck = False
    rounds = count - 1
    low, high = (0, 1) if bracket[0][1] <= bracket[-1][1] else (1, 0)
    while not done and rounds < most:
        if _magnitude(bracket[1][0] - bracket[0][0]) * largest < tolerance:
            break
        (a, fa, _, sa), (b, fb, _, sb) = bracket
        step = _cubic(a, fa, sa, b, fb, sb)
        # away from the ends: two tries near one of them move a tenth of the way in
        near = 0.1 * (max(a, b) - min(a, b))
        if min(max(a, b) - step, step - min(a, b)) < near:
            if stuck or step >= max(a, b) or step <= min(a, b):
                step = max(a, b) - near if _magnitude(step - max(a, b)) < _magnitude(step - min(a, b)) else min(a, b) + near
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        f_new, g_new = evaluate(step)
        count += 1
        rounds += 1
        s_new = dot(g_new, direction).item()
        point = (step, f_new, g_new.clone(), s_new)
        if f_new > value + c1 * step * slope or f_new >= bracket[low][1]:
            bracket[high] = point
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
            continue
        if _magnitude(s_new) <= -c2 * slope:
            done = True
        elif s_new * (bracket[high][0] - bracket[low][0]) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = point
    found = bracket[low] if len(bracket) > 1 else bracket[0]
    return found[1], found[2], found[0], count


def _magnitude(x: float) -> float:
    return -x if x < 0 else x
