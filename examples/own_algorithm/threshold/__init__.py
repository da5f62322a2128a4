"""An algorithm of its own, outside of bitbudget: `import threshold` makes `Trainer(strategy="threshold")` work."""

from pathlib import Path

import bench

bench.register(bench.load_recipe(Path(__file__).parent / "configs" / "algorithm" / "threshold.yaml"))
