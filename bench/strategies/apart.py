"""Workers whose parameters never meet: their mean, which is evaluated and saved."""

import torch
from torch import Tensor

from bench.gradients.layout import Layout
from bench.kernels.sums import sum_in_order
from bench.round.cohort import Cohort


class Apart:
    """The mean of w_m = w − e_m over all workers. While training, the module holds w.

    Gathering the errors is no part of training, so the ledger does not count it.

    Args:
        cohort: keeps the errors.
        layout: of w.
    """

    def __init__(self, cohort: Cohort, layout: Layout) -> None:
        self.cohort = cohort
        self.layout = layout
        self._shared: Tensor | None = None

    @property
    def shared(self) -> Tensor:
        """w, also while the module holds the mean."""
        return self.layout.vector if self._shared is None else self._shared

    def mean(self) -> Tensor:
        """(d,): the workers' mean. All processes must call it."""
        errors = torch.cat(self.cohort.world.gather(self.cohort.workers.kept[:, 0].cpu()))
        return self.shared - sum_in_order(list(errors)).div_(len(errors)).to(self.shared.device)

    def put(self) -> None:
        """Write the mean to the module. All processes must call it."""
        self.layout.bind_again()
        mean = self.mean()
        self._shared = self.shared.clone()
        self.layout.vector.copy_(mean)

    def put_back(self) -> None:
        """Write w to the module."""
        if self._shared is not None:
            self.layout.vector.copy_(self._shared)
            self._shared = None

    def named(self) -> dict[str, Tensor]:
        """The mean by the parameters' names. All processes must call it."""
        return dict(zip(self.layout.names, self.layout.views(self.mean()), strict=True))
