"""Configs of threshold-v, on Hydra's search path as `pkg://threshold.configs`."""
