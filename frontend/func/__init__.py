"""Functions of functions: derivatives, and batches. They nest in any order, and run compiled as well as eagerly."""

from graphc.frontend.func.gradients import grad, grad_and_value, jvp, linearize, value_and_grad, vjp
from graphc.frontend.func.jacobians import hessian, jacfwd, jacrev
from graphc.frontend.func.modules import functional_call, replace_all_batch_norm_modules_, stack_module_state
from graphc.frontend.func.vectorize import vmap

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
    "replace_all_batch_norm_modules_", "stack_module_state", "value_and_grad", "vjp", "vmap",
]
