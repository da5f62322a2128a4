"""A loop around DistributedDataParallel that cannot be changed: a communication hook compresses.

    torchrun --nproc-per-node 2 examples/ddp_hook.py

Recipes that take a second backward pass (`lasg`, `sasg`, `lazy_signs`) or local steps (`diloco`, `sparseloco`,
`sparta`) are refused; all others send what they send everywhere.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import bench


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    loader = DataLoader(data, batch_size=10, sampler=DistributedSampler(data), drop_last=True)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    hook = bench.CompressionHook(model, "qsgd", optimizer)
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    if dist.get_rank() == 0:
        with torch.no_grad():
            accuracy = (model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
        print(f"accuracy {accuracy:.3f}, {hook.ledger.uplink_bits:.3g} bits up in {hook.ledger.rounds} rounds")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
