"""Tour, 2 of 8: derivatives, of tensors and of functions.

    python examples/02_autograd.py

Tensors that require a gradient remember what is done with them, and `backward()` goes the way back, as in PyTorch. Functions
have derivatives without that, as in JAX: `grad`, `jacrev`, `hessian` and `vmap` take a function and give another one, in any
order and number.
"""

import graphc
from graphc import nn
from graphc.func import grad, hessian, vmap

# The tape: the gradients of a line's squared error.
x = graphc.linspace(-1, 1, 50)
y = 3 * x - 0.5
slope = graphc.tensor(0.0, requires_grad=True)
offset = graphc.tensor(0.0, requires_grad=True)
for _ in range(200):
    loss = ((slope * x + offset - y) ** 2).mean()
    loss.backward()
    with graphc.no_grad():
        for parameter in (slope, offset):
            parameter -= 0.3 * parameter.grad
            parameter.grad = None
print(f"y = {slope.item():.4f} x + {offset.item():.4f}")
assert abs(slope.item() - 3) < 1e-3 and abs(offset.item() + 0.5) < 1e-3

# The same with a module and an optimizer.
model = nn.Linear(1, 1)
optimizer = graphc.optim.Adam(model.parameters(), lr=0.1)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x[:, None]), y[:, None]).backward()
    optimizer.step()
print("by nn.Linear and Adam:", model.weight.item(), model.bias.item())

# Functions of functions. Each derivative is a function again, and vmap runs it for a whole batch at once.
third = vmap(grad(grad(grad(lambda t: t**4))))
print("the third derivative of t^4:", third(graphc.tensor([1.0, 2.0])))
print("a Hessian:", hessian(lambda v: (v**2).sum() * v[0])(graphc.tensor([1.0, 2.0])))


# A derivative of one's own, where there is a better one than that of the formula.
class LogOnePlusExp(graphc.autograd.Function):
    @staticmethod
    def forward(ctx, t):
        ctx.save_for_backward(t)
        return t.clamp(min=0) + (-t.abs()).exp().log1p()

    @staticmethod
    def backward(ctx, cotangent):
        (t,) = ctx.saved_tensors
        return cotangent * t.sigmoid()


t = graphc.tensor([-100.0, 0.0, 100.0], requires_grad=True)
LogOnePlusExp.apply(t).sum().backward()
print("log(1 + e^t)' at -100, 0 and 100:", t.grad)
