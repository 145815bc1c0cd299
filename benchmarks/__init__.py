"""Speed as ratios: this project and a yardstick of the same work, measured in interleaved pairs in one process."""
