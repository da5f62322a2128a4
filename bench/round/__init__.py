"""One round of M workers and their server. Read `cohort.py` first."""
