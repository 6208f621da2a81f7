"""Measurements that can be repeated with one command each; RESULTS.md holds what they said."""
