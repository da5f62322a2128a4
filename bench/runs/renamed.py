"""What parts were called in configs that were written before they moved."""

RENAMED = {
    "bench.asynchronous.SharedMemory": "bench.runs.asynchronous.SharedMemory",
    "bench.convex.ConvexProblem": "bench.runs.convex.ConvexProblem",
    "bench.local_sgd.LocalSGD": "bench.estimators.LocalSGD",
    "bench.schedules.InverseTime": "bench.runs.schedules.InverseTime",
    "bench.svrg.SVRG": "bench.estimators.SVRG",
    "bench.wandb_logger.BudgetLogger": "bench.runs.wandb_logger.BudgetLogger",
}
"""The name now, by the name then."""
