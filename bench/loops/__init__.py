"""Other doors to a round than Lightning: plain PyTorch loops, and hooks of DistributedDataParallel."""
