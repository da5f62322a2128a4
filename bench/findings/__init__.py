"""Presents results by experiment: tables, figures, a dashboard and panels on Weights & Biases."""
