"""The chain of steps, and what is done with it: compile, run."""
