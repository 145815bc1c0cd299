"""The sub-commands of `python -m pipelines`."""
