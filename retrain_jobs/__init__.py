"""Retraining jobs: captured traffic and feedback in, a checked adapter with its evaluation out."""
