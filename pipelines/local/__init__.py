"""The pipeline on this machine, with kfp.local: each step as a process or in a container."""
