"""Tiny Shakespeare: 1,115,394 characters of his plays, in the public domain. A token is a character.

Karpathy: The Unreasonable Effectiveness of Recurrent Neural Networks, 2015.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.errors import InputError
from bench.suite.datamodules.sharding import ShardedData

SOURCE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class Passages(Dataset):
    """Consecutive passages of a text. Indexing by a tensor of shape S gives tokens and the next ones, (S, T) each.

    Args:
        tokens: (N,) int64.
        length: T.
        device: where they are stored.
    """

    def __init__(self, tokens: np.ndarray, length: int, device: torch.device) -> None:
        count = (len(tokens) - 1) // length
        text = torch.from_numpy(tokens).to(device)
        self.read = text[: count * length].view(count, length)
        self.next = text[1 : count * length + 1].view(count, length)

    def __len__(self) -> int:
        return len(self.read)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        flat = indices.flatten().to(self.read.device)
        return self.read[flat].unflatten(0, indices.shape), self.next[flat].unflatten(0, indices.shape)


class Shakespeare(ShardedData):
    """
    The last tenth is held out and evaluated on.

    Args:
        data_dir: folder of shakespeare.txt, which is downloaded if it is missing.
        context: tokens of a passage.
        num_held_out: passages before the last tenth to evaluate on instead of it, for example to choose learning rates.

    Raises:
        InputError: the file is another text, or is missing and cannot be downloaded; nothing is left to train on.
    """

    digest: ClassVar[str] = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    """SHA-256 of the text."""

    num_tokens = 65

    def __init__(self, data_dir: str = "data", context: int = 128, num_held_out: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"eval_batch_size": 64, **kwargs})
        if context < 1:
            raise InputError(f"context: {context}; at least 1 token is needed")
        self.path = Path(data_dir) / "shakespeare.txt"
        self.context = context
        self.num_held_out = num_held_out

    def prepare_data(self) -> None:
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:  # one per process
            partial = Path(folder) / self.path.name
            try:
                torch.hub.download_url_to_file(SOURCE, str(partial), progress=False)
            except (OSError, URLError) as error:
                raise InputError(f"{self.path}: missing, and the download failed: {error}") from error
            partial.replace(self.path)

    def load(self) -> np.ndarray:
        """(N,) tokens: the places of the characters in the sorted alphabet."""
        content = self.path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise InputError(f"{self.path}: not tiny Shakespeare, of SHA-256 {self.digest}; remove it to fetch it")
        return np.unique(np.frombuffer(content, np.uint8), return_inverse=True)[1].astype(np.int64)

    def setup(self, stage: str) -> None:
        tokens, device = self.load(), self.strategy.root_device
        kept = len(tokens) * 9 // 10
        train, test = tokens[:kept], tokens[kept:]
        if self.num_held_out:
            most = len(Passages(train, self.context, device)) - 1
            if not 0 < self.num_held_out <= most:
                raise InputError(f"num_held_out: {self.num_held_out}; 1 to {most} passages are allowed")
            start = len(train) - self.num_held_out * self.context - 1
            train, test = train[:start], train[start:]
        passages = Passages(train, self.context, device), Passages(test, self.context, device)
        alike = [np.zeros(len(part), np.int64) for part in passages]  # no classes that a split could tell apart
        self.deal(*passages, *alike)
