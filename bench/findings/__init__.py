"""What runs left behind, read by experiment: tables, figures, a dashboard, panels on Weights & Biases."""
