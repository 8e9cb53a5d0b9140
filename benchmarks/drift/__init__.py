"""Drift: false alarms, delay, estimated accuracy and cost, beside their peers."""
