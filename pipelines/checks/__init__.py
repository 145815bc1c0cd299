"""What stands between this machine and a first run: checks that only read, each with the command that mends."""
