"""Any LightningModule: the name of a recipe is the strategy.

    python examples/lightning_strategy.py

`strategy="sasg"` simulates ten workers in this process; `strategy="sasg_ddp", devices=4` starts four real ones.
"""

import lightning
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bench


class Digits(lightning.LightningModule):
    """A small network on scikit-learn's digits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    lightning.seed_everything(0, verbose=False)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    loader = DataLoader(data, batch_size=100, shuffle=True, drop_last=True)  # ten samples for each of ten workers
    strategy = bench.CompressedStrategy("sparse", density=0.05)  # or just its name
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(strategy=strategy, max_epochs=3, accelerator="cpu", **quiet)
    module = Digits()
    trainer.fit(module, loader)
    with torch.no_grad():
        accuracy = (module.network(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
    ledger = strategy.ledger
    print(f"accuracy {accuracy:.3f} after {ledger.rounds} rounds, {ledger.uplink_bits + ledger.downlink_bits:.3g} bits")


if __name__ == "__main__":
    main()
