"""A plain PyTorch loop: one object between `backward()` and `step()`.

    torchrun --nproc-per-node 2 examples/plain_pytorch.py

A lazy recipe such as `sasg` also compares gradients at older parameters: it takes a closure that computes the loss of
the same batch again.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import bench


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=10, sampler=sampler, drop_last=True)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sync = bench.CompressedAllReduce(model, "sasg", density=0.05)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        sync.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sync(optimizer, lambda x=x, y=y: F.cross_entropy(model(x), y))
            optimizer.step()
    if dist.get_rank() == 0:
        with torch.no_grad():
            accuracy = (model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
        ledger = sync.ledger
        print(f"accuracy {accuracy:.3f}, {ledger.uploads} uploads in {ledger.rounds} rounds, skips {ledger.skips}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
