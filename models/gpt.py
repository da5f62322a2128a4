"""A small GPT: a causal transformer over characters; 1,024,640 parameters by default.

Radford et al.: Language Models are Unsupervised Multitask Learners (GPT-2), 2019.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import InputError


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each after a layer norm and around a shortcut."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.before_network = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        joint = self.queries_keys_values(self.before_attention(x)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = joint.movedim(-3, 0).transpose(-3, -2).unbind()
        attention = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.attended(attention.transpose(-3, -2).flatten(-2))
        return x + self.network(self.before_network(x))


class GPT(nn.Module):
    """
    Args:
        num_tokens: the size of the vocabulary.
        context: the most tokens that are read at once.
        width: of an embedding; a multiple of `num_heads`.
        num_layers: blocks.
        num_heads: of attention.

    Raises:
        InputError: the width is not a multiple of the number of heads.
    """

    def __init__(
        self, num_tokens: int = 65, context: int = 128, width: int = 128, num_layers: int = 5, num_heads: int = 4
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise InputError(f"width: {width}; a multiple of num_heads, {num_heads}, is needed")
        self.context = context
        self.tokens = nn.Embedding(num_tokens, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, num_tokens, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens, T at most `context` -> (B, T, num_tokens) logits of the next ones.

        Raises:
            InputError: T is larger.
        """
        if (length := tokens.shape[-1]) > self.context:
            raise InputError(f"model.context: {self.context}; the data have {length} in a row, as many are needed")
        x = self.tokens(tokens) + self.places(torch.arange(length, device=tokens.device))
        return self.logits(self.norm(self.blocks(x)))
