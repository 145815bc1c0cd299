"""The pipeline, and the commands to compile it, run it here, and submit, rerun and schedule it on a service."""
