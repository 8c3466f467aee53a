"""Distributions against SciPy: densities, moments, entropies, divergences, draws and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats

import graphc
from graphc import distributions as D
from graphc.errors import ArgumentError

PAIRS = [
    (D.Normal(1.0, 2.0), scipy.stats.norm(1, 2)),
    (D.Laplace(1.0, 2.0), scipy.stats.laplace(1, 2)),
    (D.Uniform(-1.0, 3.0), scipy.stats.uniform(-1, 4)),
    (D.Exponential(0.5), scipy.stats.expon(scale=2)),
]
VALUES = [0.0, 0.5, 2.5]


@pytest.mark.parametrize("ours, theirs", PAIRS, ids=lambda d: type(d).__name__)
def test_continuous_distributions(ours: Any, theirs: Any) -> None:
    x = graphc.tensor(VALUES)
    np.testing.assert_allclose(ours.log_prob(x), theirs.logpdf(VALUES), rtol=1e-5)
    np.testing.assert_allclose(ours.cdf(x), theirs.cdf(VALUES), rtol=1e-5, atol=1e-6)
    for name, their_name in {"mean": "mean", "stddev": "std", "variance": "var"}.items():
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, their_name)(), rtol=1e-5)
    np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-5)
    np.testing.assert_allclose(ours.perplexity(), math.exp(theirs.entropy()), rtol=1e-5)
    graphc.manual_seed(0)
    drawn = ours.sample((20_000,))
    assert drawn.shape == (20_000,) and scipy.stats.kstest(drawn.numpy(), theirs.cdf).pvalue > 1e-3


def test_inverse_distribution_functions() -> None:
    p = graphc.tensor([0.1, 0.5, 0.9])
    np.testing.assert_allclose(D.Normal(1.0, 2.0).icdf(p), scipy.stats.norm(1, 2).ppf(p.numpy()), rtol=1e-5)
    np.testing.assert_allclose(D.Uniform(-1.0, 3.0).icdf(p), [-0.6, 1, 2.6], rtol=1e-5)


@pytest.mark.parametrize("given", [{"probs": graphc.tensor([0.1, 0.5, 0.8])}, {"logits": graphc.tensor([-2.0, 0.0, 1.0])}])
def test_bernoulli(given: dict[str, graphc.Tensor]) -> None:
    d = D.Bernoulli(**given)
    p = d.probs.numpy()
    theirs = scipy.stats.bernoulli(p.astype(np.float64))
    for x in (0.0, 1.0):
        np.testing.assert_allclose(d.log_prob(graphc.tensor(x)), theirs.logpmf(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d.entropy(), theirs.entropy(), rtol=1e-4)
    np.testing.assert_allclose(d.variance, p * (1 - p), rtol=1e-6)
    np.testing.assert_allclose(d.logits, np.log(p / (1 - p)), rtol=1e-4, atol=1e-6)
    assert d.mode.tolist()[::2] == [0, 1] and math.isnan(d.mode[1].item()) and d.param_shape == (3,)
    graphc.manual_seed(0)
    np.testing.assert_allclose(d.sample((20_000,)).mean(0), p, atol=0.015)
    assert d.enumerate_support().tolist() == [[0] * 3, [1] * 3]


def test_categorical() -> None:
    weights = graphc.tensor([[1.0, 3.0, 0.0], [2.0, 2.0, 4.0]])
    d = D.Categorical(weights)
    p = np.array([[0.25, 0.75, 0], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(d.probs, p)
    np.testing.assert_allclose(d.log_prob(graphc.tensor([1, 2])), np.log([0.75, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(d.log_prob(graphc.tensor([[0], [1]])), np.log([[0.25, 0.25], [0.75, 0.25]]), rtol=1e-6)
    np.testing.assert_allclose(d.entropy(), [scipy.stats.entropy(row) for row in p], rtol=1e-5)
    assert d.mode.tolist() == [1, 2] and d.batch_shape == (2,) and d.event_shape == () and d.mean.isnan().all()
    graphc.manual_seed(0)
    drawn = d.sample((20_000,))
    assert drawn.shape == (20_000, 2) and d.sample().shape == (2,) and d.sample((2, 5)).shape == (2, 5, 2)
    for i in range(2):
        np.testing.assert_allclose(np.bincount(drawn[:, i].numpy(), minlength=3) / 20_000, p[i], atol=0.015)
    assert d.enumerate_support().tolist() == [[0, 0], [1, 1], [2, 2]]
    same = D.Categorical(logits=weights.clamp(min=1e-30).log() + 5)
    np.testing.assert_allclose(same.probs, p, atol=1e-6)
    assert D.Categorical(logits=graphc.tensor([0.0, -math.inf])).entropy().item() == 0


def test_gradients_reach_the_parameters() -> None:
    loc = graphc.tensor([0.5], requires_grad=True, dtype=graphc.float64)
    scale = graphc.tensor([1.5], requires_grad=True, dtype=graphc.float64)
    draw = D.Normal(loc, scale).rsample((7,))
    draw.sum().backward()
    assert loc.grad.item() == 7
    np.testing.assert_allclose(scale.grad.item(), ((draw - loc) / scale).sum().item())
    assert not D.Normal(loc, scale).sample().requires_grad
    logits = graphc.tensor([0.3, -0.2], requires_grad=True)
    D.Categorical(logits=logits).log_prob(graphc.tensor(0)).backward()
    p = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    np.testing.assert_allclose(logits.grad, np.array([1, 0]) - p, rtol=1e-5)
    with pytest.raises(NotImplementedError):
        D.Categorical(logits=logits).rsample()


def test_independent_batches() -> None:
    base = D.Normal(graphc.zeros(4, 3), graphc.ones(3))
    d = D.Independent(base, 1)
    x = graphc.randn(4, 3)
    assert d.batch_shape == (4,) and d.event_shape == (3,) and d.sample((2,)).shape == (2, 4, 3) and d.has_rsample
    np.testing.assert_allclose(d.log_prob(x), base.log_prob(x).sum(1), rtol=1e-6)
    np.testing.assert_allclose(d.entropy(), base.entropy().sum(1), rtol=1e-6)
    assert repr(d).startswith("Independent(Normal(") and d.expand((2, 4)).batch_shape == (2, 4)
    with pytest.raises(ValueError, match="reinterpreted_batch_ndims"):
        D.Independent(base, 3)


@pytest.mark.parametrize("p, q, support", [
    (D.Normal(0.0, 1.0), D.Normal(1.0, 2.0), (-9, 9)), (D.Laplace(0.0, 1.0), D.Laplace(1.0, 2.0), (-30, 30)),
    (D.Uniform(0.0, 1.0), D.Uniform(-1.0, 2.0), (0, 1 - 1e-6)), (D.Exponential(2.0), D.Exponential(0.5), (0, 15)),
])  # fmt: skip
def test_divergences_are_integrals(p: Any, q: Any, support: tuple[float, float]) -> None:
    x = graphc.linspace(*support, 200_001, dtype=graphc.float64)
    integrand = p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x))
    step = (support[1] - support[0]) / 200_000
    np.testing.assert_allclose(D.kl_divergence(p, q).item(), integrand.sum().item() * step, rtol=1e-3)
    assert D.kl_divergence(p, p).item() == pytest.approx(0, abs=1e-6)


def test_divergences_of_discrete_distributions() -> None:
    a, b = np.array([0.2, 0.5, 0.3]), np.array([0.3, 0.3, 0.4])
    ours = D.kl_divergence(D.Categorical(graphc.tensor(a)), D.Categorical(graphc.tensor(b)))
    np.testing.assert_allclose(ours, scipy.stats.entropy(a, b))
    ours = D.kl_divergence(D.Bernoulli(graphc.tensor(0.2)), D.Bernoulli(graphc.tensor(0.6)))
    np.testing.assert_allclose(ours, scipy.stats.entropy([0.2, 0.8], [0.6, 0.4]), rtol=1e-5)
    whole, part = D.Categorical(graphc.tensor([0.5, 0.5])), D.Categorical(graphc.tensor([1.0, 0.0]))
    assert D.kl_divergence(whole, part).item() == math.inf
    assert D.kl_divergence(part, whole).item() == pytest.approx(math.log(2), rel=1e-5)
    assert D.kl_divergence(D.Uniform(0.0, 2.0), D.Uniform(0.0, 1.0)).item() == math.inf
    p, q = (D.Independent(D.Normal(graphc.zeros(3), s), 1) for s in (1.0, 2.0))
    np.testing.assert_allclose(D.kl_divergence(p, q), 3 * D.kl_divergence(D.Normal(0.0, 1.0), D.Normal(0.0, 2.0)), rtol=1e-6)
    with pytest.raises(NotImplementedError, match=r"No KL\(p \|\| q\).*Normal.*Uniform"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Uniform(0.0, 1.0))


def test_shapes_and_texts() -> None:
    d = D.Normal(graphc.zeros(2), 1.0)
    assert d.batch_shape == (2,) and d.scale.shape == (2,) and d.sample((3,)).shape == (3, 2)
    assert d.expand((4, 2)).loc.shape == (4, 2) and D.Bernoulli(0.5).expand((2,)).sample().shape == (2,)
    assert repr(D.Normal(0.0, 1.0)) == "Normal(loc: 0.0, scale: 1.0)"
    assert repr(d) == "Normal(loc: graphc.Size([2]), scale: graphc.Size([2]))"
    assert repr(D.Categorical(graphc.ones(2, 3))) == "Categorical(probs: graphc.Size([2, 3]))"
    assert repr(D.Bernoulli(logits=0.5)) == "Bernoulli(logits: 0.5)"


@pytest.mark.parametrize("make, message", [
    (lambda: D.Normal(0.0, -1.0), r"(?s)Expected parameter scale \(Tensor of shape \(\)\).*GreaterThan.*found invalid values"),
    (lambda: D.Bernoulli(1.5), "Expected parameter probs"),
    (lambda: D.Categorical(graphc.tensor([-1.0, 2.0])), r"constraint Simplex\(\)"),
    (lambda: D.Categorical(graphc.tensor(1.0)), "`probs` parameter must be at least one-dimensional"),
    (lambda: D.Categorical(), "Either `probs` or `logits` must be specified, but not both"),
    (lambda: D.Uniform(1.0, 0.0), "low has to be less than high"),
    (lambda: D.Categorical(graphc.ones(3)).log_prob(graphc.tensor(3)), r"IntegerInterval\(lower_bound=0, upper_bound=2\)"),
    (lambda: D.Bernoulli(0.5).log_prob(graphc.tensor(2.0)), r"support \(Boolean\(\)\)"),
    (lambda: D.Normal(0.0, 1.0).log_prob(graphc.tensor(math.nan)), "within the support"),
])  # fmt: skip
def test_what_does_not_fit_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_checks_can_be_left_out() -> None:
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1


@pytest.mark.parametrize(("ours", "theirs"), [
    (D.LogNormal(0.2, 0.7), scipy.stats.lognorm(0.7, scale=math.exp(0.2))),
    (D.HalfNormal(1.3), scipy.stats.halfnorm(scale=1.3)),
    (D.Cauchy(0.1, 2.0), scipy.stats.cauchy(0.1, 2)), (D.Gumbel(0.3, 1.2), scipy.stats.gumbel_r(0.3, 1.2)),
], ids=["LogNormal", "HalfNormal", "Cauchy", "Gumbel"])  # fmt: skip
def test_more_continuous_distributions(ours: Any, theirs: Any) -> None:
    x, p = graphc.tensor([0.3, 1.0, 2.5]), graphc.tensor([0.2, 0.7])
    np.testing.assert_allclose(ours.log_prob(x), theirs.logpdf(x.numpy()), rtol=1e-5)
    np.testing.assert_allclose(ours.cdf(x), theirs.cdf(x.numpy()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.icdf(p), theirs.ppf(p.numpy()), rtol=1e-4)
    np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-5)
    if not isinstance(ours, D.Cauchy):
        np.testing.assert_allclose([ours.mean, ours.variance], [theirs.mean(), theirs.var()], rtol=1e-5)
    graphc.manual_seed(0)
    drawn = ours.sample((20_000,))
    assert scipy.stats.kstest(drawn.numpy(), theirs.cdf).pvalue > 1e-3
    assert ours.expand((4,)).rsample().shape == (4,)


A = np.array([[2.0, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize("given", [
    {"covariance_matrix": A}, {"precision_matrix": np.linalg.inv(A)}, {"scale_tril": np.linalg.cholesky(A)},
], ids=lambda given: next(iter(given)))
def test_normal_vectors(given: dict[str, np.ndarray]) -> None:
    mean, x = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]), np.array([0.3, 0.7])
    ours = D.MultivariateNormal(graphc.tensor(mean), **{name: graphc.tensor(matrix) for name, matrix in given.items()})
    assert ours.batch_shape == (3,) and ours.event_shape == (2,)
    theirs = [scipy.stats.multivariate_normal(m, A) for m in mean]
    np.testing.assert_allclose(ours.log_prob(graphc.tensor(x)), [d.logpdf(x) for d in theirs], rtol=1e-10)
    np.testing.assert_allclose(ours.entropy(), [d.entropy() for d in theirs], rtol=1e-10)
    np.testing.assert_allclose(ours.covariance_matrix[0], A, rtol=1e-10)
    np.testing.assert_allclose(ours.precision_matrix[0], np.linalg.inv(A), rtol=1e-10)
    np.testing.assert_allclose(ours.variance[0], A.diagonal(), rtol=1e-10)
    graphc.manual_seed(1)
    drawn = ours.sample((20_000,)).numpy()
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(drawn[:, 0].T), A, atol=0.08)
    assert ours.expand((4, 3)).log_prob(graphc.tensor(x)).shape == (4, 3)


def test_normal_vectors_are_differentiable_and_apart() -> None:
    factor = graphc.tensor([[1.0, 0.0], [0.3, 2.0]], requires_grad=True)
    p = D.MultivariateNormal(graphc.tensor([1.0, 0.0]), scale_tril=factor)
    p.rsample((3,)).sum().backward()
    assert factor.grad is not None
    single = [D.Normal(0.5, 2.0), D.Normal(-1.0, 3.0)]
    joint = [D.MultivariateNormal(d.loc[None], (d.scale**2)[None, None]) for d in single]
    np.testing.assert_allclose(D.kl_divergence(*joint), D.kl_divergence(*single), rtol=1e-5)
    for make in (lambda: D.MultivariateNormal(graphc.zeros(2)), lambda: D.MultivariateNormal(graphc.zeros(2), graphc.ones(2)),
                 lambda: D.MultivariateNormal(graphc.tensor(0.0), graphc.eye(2)),
                 lambda: D.MultivariateNormal(graphc.zeros(2), scale_tril=graphc.ones(2, 2))):
        with pytest.raises(ValueError):
            make()


def test_one_hot_categorical() -> None:
    d = D.OneHotCategorical(graphc.tensor([0.2, 0.5, 0.3]))
    np.testing.assert_allclose(d.log_prob(graphc.eye(3)), np.log([0.2, 0.5, 0.3]), rtol=1e-6)
    assert d.sample((7,)).sum(-1).tolist() == [1.0] * 7 and d.mode.tolist() == [0.0, 1.0, 0.0]
    assert graphc.equal(d.enumerate_support(), graphc.eye(3)) and d.expand((2,)).sample().shape == (2, 3)
    np.testing.assert_allclose(d.entropy(), D.Categorical(d.probs).entropy(), rtol=1e-6)
    with pytest.raises(ValueError, match="OneHot"):
        d.log_prob(graphc.tensor([0.5, 0.5, 0.0]))


# In compiled functions

NAN = float("nan")
CHECKED: dict[str, tuple[Callable[[Any], Any], list[float]]] = {
    "normal": (lambda v: D.Normal(0.0, v).log_prob(graphc.tensor(1.0)), [-1.0, -1.0, 1.0, -1.0, 2.0]),
    "normal of vectors": (lambda v: D.Normal(graphc.zeros(3), v * graphc.ones(3)).log_prob(v), [1.0, -1.0, -1.0, NAN, 2.0]),
    "nothing but numbers": (lambda v: D.Normal(0.0, 1.0).cdf(v), [1.0, NAN, 1.0]),
    "wrong numbers": (lambda v: D.Normal(0.0, -1.0).cdf(v), [1.0, 1.0]),
    "bernoulli": (lambda v: D.Bernoulli(graphc.tensor(0.5)).log_prob(v), [2.0, 2.0, 1.0, 2.0]),
    "logits": (lambda v: D.Categorical(logits=v * graphc.ones(3)).log_prob(graphc.tensor(1)), [1.0, NAN, NAN, 1.0]),
    "probabilities": (lambda v: D.Categorical(v * graphc.ones(3)).entropy(), [-1.0, 1.0, -1.0]),
    "classes": (lambda v: D.Categorical(graphc.ones(3)).log_prob(v), [7.0, 1.0, 7.0, -1.0]),
    "uniform": (lambda v: D.Uniform(0.0, v).entropy(), [-1.0, 1.0, -1.0]),
    "matrix": (lambda v: D.MultivariateNormal(graphc.zeros(2), scale_tril=v * graphc.eye(2)).entropy(), [-1.0, 1.0, -1.0]),
    "one of a batch": (lambda v: D.Exponential(graphc.stack([v, v + 2])).mean.sum(), [-1.0, 1.0, -1.0]),
}


def _outcome(function: Callable[[Any], Any], x: float) -> str:
    try:
        return repr(function(graphc.tensor(x)))
    except ArgumentError as error:
        return error.problem


@pytest.mark.parametrize("name", CHECKED)
def test_each_call_of_a_compiled_function_checks_what_eager_code_does(name: str) -> None:
    function, given = CHECKED[name]
    compiled = graphc.compile(function)
    outcomes = [_outcome(function, x) for x in given]
    assert any("invalid values" in outcome or "less than" in outcome for outcome in outcomes)
    assert [_outcome(compiled, x) for x in given] == outcomes


@pytest.mark.usefixtures("recorded_however_small")
def test_python_runs_no_call_of_valid_arguments_again(python_runs: list[str]) -> None:
    compiled = graphc.compile(lambda v: D.kl_divergence(D.Normal(0.0, v), D.Normal(0.0, 1.0)))
    compiled(graphc.tensor(2.0))
    python_runs.clear()
    assert compiled(graphc.tensor(1.0)).item() == pytest.approx(0, abs=1e-6)
    assert not python_runs


def test_checks_are_left_out_where_there_are_no_numbers() -> None:
    def density(v: Any) -> Any:
        return D.Normal(0.0, v).log_prob(graphc.tensor(1.0))

    v = graphc.tensor([1.0, 2.0])
    want = graphc.stack([density(x) for x in v])
    mapped = graphc.func.vmap(density)
    for function in (mapped, graphc.compile(mapped), graphc.compile(density, fullgraph=True)):
        assert graphc.allclose(function(v), want)
    assert graphc.compile(graphc.func.grad(density))(graphc.tensor(1.0)).item() == pytest.approx(0, abs=1e-6)
    assert graphc.compile(density, fullgraph=True)(graphc.tensor(-1.0)).isnan()
