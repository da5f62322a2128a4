"""Compiled passes over long vectors, what they are on accelerators, and random numbers that every world draws alike."""
