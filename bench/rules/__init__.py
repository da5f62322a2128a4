"""Upload rules: which workers upload in a round, all or lazily. One family of rules per file."""

from bench.rules.base import Always, UploadRule, View
from bench.rules.lag import LAGWK
from bench.rules.laq import LAQ
from bench.rules.lasg import LASGPS, LASGWK1, LASGWK2
from bench.rules.lazy import LazyRule

__all__ = ["LAGWK", "LAQ", "LASGPS", "LASGWK1", "LASGWK2", "Always", "LazyRule", "UploadRule", "View"]
