"""Compiled passes over long vectors, their accelerator versions, and random numbers that are the same in every world.

A world is where the workers run: simulated in one process, or one process each.
"""
