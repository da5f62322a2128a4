"""What workers take for their gradient, if it is not that of a batch."""

from bench.estimators.base import Estimator
from bench.estimators.local_sgd import LocalSGD
from bench.estimators.svrg import SVRG

__all__ = ["SVRG", "Estimator", "LocalSGD"]
