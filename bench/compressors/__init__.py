"""Compressors, one per file."""

from bench.compressors.base import Agreeing, Compressor
from bench.compressors.chunk_topk import ChunkTopK
from bench.compressors.cosine_topk import CosineTopK
from bench.compressors.grid import Grid
from bench.compressors.gspar import GSpar, GSparClosed
from bench.compressors.half import Half
from bench.compressors.identity import Identity
from bench.compressors.natural import Natural
from bench.compressors.powersgd import PowerSGD
from bench.compressors.qsgd import QSGD
from bench.compressors.random_k import RandomK
from bench.compressors.random_mask import RandomMask
from bench.compressors.scaled_sign import ScaledSign
from bench.compressors.shortest import Shortest
from bench.compressors.sign import Sign
from bench.compressors.ternary import Ternary
from bench.compressors.terngrad import TernGrad
from bench.compressors.topk import TopK
from bench.compressors.topk_sign import TopKSign
from bench.compressors.topk_ternary import TopKTernary
from bench.compressors.topk_warmup import TopKWarmUp
from bench.compressors.unisp import UniSp
from bench.compressors.warm_up import WarmUp

__all__ = [
    "QSGD",
    "Agreeing",
    "ChunkTopK",
    "Compressor",
    "CosineTopK",
    "GSpar",
    "GSparClosed",
    "Grid",
    "Half",
    "Identity",
    "Natural",
    "PowerSGD",
    "RandomK",
    "RandomMask",
    "ScaledSign",
    "Shortest",
    "Sign",
    "TernGrad",
    "Ternary",
    "TopK",
    "TopKSign",
    "TopKTernary",
    "TopKWarmUp",
    "UniSp",
    "WarmUp",
]
