"""Asynchronous SGD on shared memory: threads read a support vector machine's w without locks, and write it coordinate
by coordinate, each under its own lock. It shows what sparse updates gain where writes contend.

Wangni, Wang, Liu, Zhang: Gradient Sparsification for Communication-Efficient Distributed Optimization, NeurIPS 2018,
section 5.3; after Recht, Re, Wright, Niu: Hogwild!, NeurIPS 2011.

Threads run compiled code without the interpreter's lock, so only the machine limits how many run at once. There are no
rounds and no messages, and no two runs are alike.
"""

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from bench.algorithm import Algorithm
from bench.compressors import GSpar, Identity, UniSp
from bench.errors import InputError
from bench.kernels.draws import uniform
from bench.kernels.noise import Noise
from bench.rules import Always
from bench.runs.columns import Row

DENSE, GSPAR, UNISP = range(3)
SPINS = 100  # tries for a lock before the thread yields to others


@dataclass(frozen=True)
class SharedMemory:
    """Threads that share one w.

    Args:
        num_threads: at least 1.
        milliseconds: how long they run.
        num_evaluations: how often f(w) is evaluated, evenly spread over the time.

    Raises:
        InputError: a number below 1.
    """

    num_threads: int
    milliseconds: int = 1000
    num_evaluations: int = 25

    def __post_init__(self) -> None:
        for name in ("num_threads", "milliseconds", "num_evaluations"):
            if (given := getattr(self, name)) < 1:
                raise InputError(f"{name}: {given}; at least 1 is needed")

    def train(
        self, algorithm: Algorithm, signed: np.ndarray, ridge: float, learning_rate: float, seed: int
    ) -> tuple[list[Row], dict[str, Any]]:
        """Minimise the mean of max(0, 1 − b_n a_nᵀw) + λ₂‖w‖² from w = 0.

        Args:
            algorithm: dense, GSpar or UniSp; its aggregator is ignored.
            signed: (N, d) float32, b_n a_n.
            ridge: λ₂.
            learning_rate: γ of one sample's update.
            seed: of samples and draws, together with the thread's index.

        Returns:
            Rows of a history: updates as rounds, seconds, f(w); and the totals of updates, writes, and writes that
            waited for a lock.

        Raises:
            InputError: a recipe that needs rounds.
        """
        method, density, iterations = _method(algorithm)
        w, locks = np.zeros(signed.shape[1], np.float32), np.zeros(signed.shape[1], np.int32)
        counts = np.zeros((self.num_threads, 16), np.int64)  # updates, writes, waits: a cache line or two per thread
        stop = np.zeros(1, np.int32)
        keys = [Noise(seed, 0, thread).key("step") for thread in range(self.num_threads)]

        def work(thread: int) -> None:
            low, high = map(np.uint32, keys[thread])
            _work(signed, w, locks, counts[thread], stop, method, density, iterations,
                  np.float32(learning_rate), np.float32(ridge), low, high)  # fmt: skip

        stop[0] = 1
        work(0)  # compiles, and returns at once
        stop[0] = 0
        seen: list[tuple[float, int, np.ndarray]] = [(0.0, 0, w.copy())]
        with ThreadPoolExecutor(self.num_threads) as pool:
            started = time.perf_counter()
            running = [pool.submit(work, thread) for thread in range(self.num_threads)]
            try:
                for i in range(1, self.num_evaluations + 1):
                    due = started + i * self.milliseconds / 1e3 / self.num_evaluations
                    time.sleep(max(0, due - time.perf_counter()))
                    seen.append((time.perf_counter() - started, int(counts[:, 0].sum()), w.copy()))
            finally:  # an interrupt must end them, too
                stop[0] = 1
            for thread in running:
                thread.result()
        rows = [{"round": n, "measured_s": s, "train_loss": objective(signed, v, ridge)} for s, n, v in seen]
        updates, writes, waits = counts[:, :3].sum(axis=0).tolist()
        return rows, {"updates": updates, "writes": writes, "waits": waits}


def objective(signed: np.ndarray, w: np.ndarray, ridge: float) -> float:
    """f(w), in double precision."""
    w = w.astype(np.float64)
    return float(np.maximum(0, 1 - signed @ w).mean() + ridge * w @ w)


def _method(algorithm: Algorithm) -> tuple[int, float, int]:
    """The kind of updates, their density, and the iterations of GSpar's greedy algorithm."""
    compressor = algorithm.compressor
    plain = algorithm.rule == Always() and algorithm.units == "gradient" and algorithm.broadcast.lossless
    if plain and not algorithm.feedback.num_vectors:
        if isinstance(compressor, Identity):
            return DENSE, 1.0, 0
        if isinstance(compressor, GSpar):
            return GSPAR, compressor.density, compressor.iterations
        if isinstance(compressor, UniSp):
            return UNISP, compressor.density, 0
    raise InputError(f"algorithm: {algorithm.name}; threads on shared memory take sgd, gspar or unisp")


@intrinsic
def _exchange(typing_context: Any, array: Any, index: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """Atomically write `value` to an entry of an int32 array; return the old value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = cgutils.get_item_pointer(context, builder, signature.args[0], place, [args[1]])
        return builder.atomic_rmw("xchg", pointer, args[2], "seq_cst")

    return types.int32(array, types.intp, types.int32), generate


_yield = ctypes.CDLL(None).sched_yield
_yield.restype, _yield.argtypes = ctypes.c_int, []


@numba.njit(nogil=True)
def _add(w: np.ndarray, locks: np.ndarray, i: int, change: Any, counts: np.ndarray) -> None:
    """Add to a coordinate under its lock."""
    spins = 0
    while _exchange(locks, i, 1):  # pyright: ignore[reportCallIssue]: a compiled function's typing is its own
        spins += 1
        if spins % SPINS == 0:
            _yield()
    w[i] += change
    _exchange(locks, i, 0)
    counts[1] += 1
    counts[2] += spins > 0


@numba.njit(nogil=True)
def _scale(g: np.ndarray, density: float, iterations: int) -> float:
    """1/λ of GSpar's greedy algorithm, as in bench.compressors.gspar."""
    budget, total, num_entries = density * g.size, 0.0, 0
    for i in range(g.size):
        total += abs(g[i])
        num_entries += g[i] != 0
    if num_entries <= budget:
        return 0.0
    scale = total / budget
    for _ in range(iterations):
        rest, num_above = 0.0, 0
        for i in range(g.size):
            if abs(g[i]) < scale:
                rest += abs(g[i])
            else:
                num_above += 1
        left = budget - num_above
        if left <= 0 or rest <= 0 or rest >= scale * left:
            break
        scale = rest / left
    return scale


@numba.njit(nogil=True)
def _work(
    signed: np.ndarray, w: np.ndarray, locks: np.ndarray, counts: np.ndarray, stop: np.ndarray, method: int,
    density: float, iterations: int, learning_rate: Any, ridge: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    num_samples, dim = signed.shape
    g = np.empty(dim, np.float32)
    drawn = 0
    while not stop[0]:
        a = signed[min(int(uniform(drawn, low, high) * num_samples), num_samples - 1)]
        drawn += 1
        margin = np.float32(0)
        for i in range(dim):
            margin += a[i] * w[i]
        hit = np.float32(margin < 1)
        for i in range(dim):
            g[i] = 2 * ridge * w[i] - hit * a[i]
        if method == DENSE:
            for i in range(dim):
                _add(w, locks, i, -learning_rate * g[i], counts)
        else:
            scale = np.float32(_scale(g, density, iterations)) if method == GSPAR else np.float32(0)
            for i in range(dim):
                u = uniform(drawn + i, low, high)
                if method == UNISP:
                    if u <= density:
                        _add(w, locks, i, -learning_rate * g[i] / np.float32(density), counts)
                elif g[i] != 0 and abs(g[i]) >= u * scale:
                    sent = g[i] if abs(g[i]) >= scale else np.copysign(scale, g[i])
                    _add(w, locks, i, -learning_rate * sent, counts)
            drawn += dim
        counts[0] += 1
