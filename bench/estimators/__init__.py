"""Gradient estimators: what workers compress in place of the gradient of one batch."""

from bench.estimators.base import Estimator
from bench.estimators.inner import InnerSteps
from bench.estimators.local_sgd import LocalSGD
from bench.estimators.svrg import SVRG

__all__ = ["SVRG", "Estimator", "InnerSteps", "LocalSGD"]
