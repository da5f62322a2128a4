"""Hugging Face's Trainer: a callback registers the hook once the Trainer has wrapped its model.

    torchrun --nproc-per-node 2 examples/hugging_face.py

A tiny GPT-2 made from a config learns to count; nothing is downloaded.
"""

import tempfile
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import bench


class Counting(Dataset):
    """Sequences of consecutive numbers."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        numbers = (torch.arange(16) + index) % 32
        return {"input_ids": numbers, "labels": numbers}


class Compressing(TrainerCallback):
    """Makes DDP send a recipe's messages.

    Args:
        recipe: a recipe or the name of one.
        options: settings of it to change.
    """

    def __init__(self, recipe: Any, **options: Any) -> None:
        self.recipe, self.options = recipe, options
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Register the hook with the wrapped model."""
        model = self.trainer.model_wrapped
        self.hook = bench.CompressionHook(model, self.recipe, kwargs["optimizer"], **self.options)


def main() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    compressing = Compressing("sparse", density=0.05)
    with tempfile.TemporaryDirectory() as folder:
        options = {"save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True}
        arguments = TrainingArguments(
            folder, max_steps=40, per_device_train_batch_size=8, learning_rate=1e-2, **options
        )
        trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Counting(), callbacks=[compressing])
        compressing.trainer = trainer
        loss = trainer.train().training_loss
    if arguments.process_index == 0:
        ledger = compressing.hook.ledger
        print(f"loss {loss:.3f} on average, {ledger.uplink_bits:.3g} bits up in {ledger.rounds} rounds")


if __name__ == "__main__":
    main()
