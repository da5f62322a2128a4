"""One compressor a file."""

from bench.compressors.base import Compressor
from bench.compressors.identity import Identity
from bench.compressors.scaled_sign import ScaledSign
from bench.compressors.sign import Sign
from bench.compressors.ternary import Ternary
from bench.compressors.topk import TopK
from bench.compressors.topk_sign import TopKSign

__all__ = ["Compressor", "Identity", "ScaledSign", "Sign", "Ternary", "TopK", "TopKSign"]
