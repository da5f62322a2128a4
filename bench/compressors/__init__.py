"""One compressor a file."""

from bench.compressors.base import Compressor
from bench.compressors.identity import Identity
from bench.compressors.topk import TopK

__all__ = ["Compressor", "Identity", "TopK"]
