"""The convex problems: their data, their exact optima, and the threads that train a shared vector."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bench.errors import InputError
from bench.runs.asynchronous import SharedMemory, _add, objective
from bench.runs.schedules import InverseTime
from bench.suite.datamodules.synthetic import LogisticData, SVMData
from bench.suite.models.linear import Hinge, Logistic, Loss, linear
from bench.tests.found import RECIPES


def signed(data: LogisticData | SVMData) -> np.ndarray:
    features, labels = data.draw()
    return np.ascontiguousarray(features * labels[:, None])


SMALL = LogisticData(num_samples=64, num_features=20, threshold=0.9, factor=0.25)


@pytest.mark.parametrize("loss", [Logistic(), Hinge()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 2.0])
def test_nothing_is_below_the_optimum(loss: Loss, ridge: float) -> None:
    """A derivative-free solver from another starting point comes close to it."""
    rows = signed(SMALL)

    def f(w: np.ndarray) -> float:
        return float(loss(torch.from_numpy(rows @ w)).mean()) + ridge * float(w @ w)

    lowest = loss.lowest(rows, ridge)
    found = minimize(f, np.ones(20), method="Powell", options={"maxiter": 20_000, "xtol": 1e-10, "ftol": 1e-14})
    assert -1e-10 <= found.fun - lowest < 2e-3
    rng = np.random.default_rng(0)
    assert all(f(found.x + step * rng.standard_normal(20)) >= lowest - 1e-10 for step in np.logspace(-8, 1, 40))


def test_the_optimum_of_the_papers_problem() -> None:
    """`lowest` certifies the optimum; its value is below that of the zero vector, which is 1 in base 2."""
    data = LogisticData(num_samples=1024, num_features=2048, threshold=0.9, factor=0.0625)
    assert Logistic().lowest(signed(data), 1 / 1024) == pytest.approx(0.6479, abs=1e-4)
    assert float(Logistic()(torch.zeros(1))) == 1


@pytest.mark.parametrize("factor", [0.25, 1 / 64])
def test_features_shrink_where_they_should(factor: float) -> None:
    """Nine of ten coordinates are shrunk, the same in every sample; labels come from the plain Gaussians."""
    data = LogisticData(num_samples=4000, num_features=300, threshold=0.9, factor=factor)
    features, labels = data.draw()
    magnitudes = features.std(axis=0)
    assert (magnitudes < 0.9 * factor * 1.1).mean() == pytest.approx(0.9, abs=0.06)
    assert magnitudes[magnitudes > 0.5].mean() == pytest.approx(0.95, abs=0.02)
    assert set(labels) == {-1, 1}
    assert labels.mean() == pytest.approx(0, abs=0.1)
    again = LogisticData(num_samples=4000, num_features=300, threshold=0.9, factor=factor, seed=9)
    assert np.array_equal(again.draw()[0], features), "a run's seed splits the data, and does not make them"


def test_labels_of_the_svm_are_noisy() -> None:
    data = SVMData(num_samples=20_000, num_features=256, threshold=0.9, factor=0.01)
    features, labels = data.draw()
    best = np.linalg.lstsq(features, labels)[0]
    assert 0.6 < (np.sign(features @ best) == labels).mean() < 0.95


def test_a_linear_model_begins_at_zero() -> None:
    assert linear(5)(torch.ones(3, 5)).tolist() == [0, 0, 0]


def test_inverse_time() -> None:
    assert [InverseTime(10)(epoch) for epoch in (0, 10, 30)] == [1, 0.5, 0.25]
    with pytest.raises(InputError, match="half_life: 0"):
        InverseTime(0)


@pytest.mark.parametrize("name", ["sgd", "gspar", "unisp"])
def test_threads_learn_together(name: str) -> None:
    """f(w) falls, and the number of writes per update is d times the density."""
    rows = signed(SVMData(num_samples=2000, num_features=64, threshold=0.9, factor=0.01)).astype(np.float32)
    history, facts = SharedMemory(num_threads=4, milliseconds=300, num_evaluations=5).train(
        RECIPES[name], rows, ridge=0.1, learning_rate=1e-4, seed=1
    )
    assert len(history) == 6
    assert history[0]["train_loss"] == objective(rows, np.zeros(64), 0.1) == 1
    assert history[-1]["train_loss"] < 1
    assert [row["round"] for row in history] == sorted(row["round"] for row in history)
    density = getattr(RECIPES[name].compressor, "density", 1.0)
    assert facts["writes"] / facts["updates"] == pytest.approx(64 * density, rel=0.2)
    assert facts["waits"] < facts["writes"]


def test_no_update_is_lost() -> None:
    """Concurrent additions to one coordinate leave the sum of all of them."""
    w, locks, counts = np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros((4, 16), np.int64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda own: _many(w, locks, own), counts))
    assert w[0] == counts[:, 1].sum() == 800_000


@numba.njit(nogil=True)
def _many(w: np.ndarray, locks: np.ndarray, counts: np.ndarray) -> None:
    for _ in range(200_000):
        _add(w, locks, 0, np.float32(1), counts)


def test_an_interrupt_ends_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.runs.asynchronous.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SharedMemory(2).train(RECIPES["sgd"], np.eye(4, dtype=np.float32), 0.1, 0.1, 1)


def test_one_thread_is_plain_sgd() -> None:
    """One dense thread writes every coordinate of each update and never waits; the loss approaches 0."""
    rows = np.eye(8, dtype=np.float32)  # each sample moves its own coordinate until its margin is 1
    history, facts = SharedMemory(num_threads=1, milliseconds=200, num_evaluations=1).train(
        RECIPES["sgd"], rows, ridge=1e-6, learning_rate=0.01, seed=1
    )
    assert facts["waits"] == 0
    assert facts["writes"] == 8 * facts["updates"]
    assert history[-1]["train_loss"] < 0.02


@pytest.mark.parametrize("recipe", ["sasg", "qsgd", "sparse", "signum_mv"])
def test_threads_refuse_what_needs_rounds(recipe: str) -> None:
    with pytest.raises(InputError, match=f"algorithm: {recipe}; threads"):
        SharedMemory(2).train(RECIPES[recipe], np.eye(2, dtype=np.float32), 0.1, 0.1, 1)
    with pytest.raises(InputError, match="num_threads: 0"):
        SharedMemory(0)
