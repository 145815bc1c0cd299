"""Speed as ratios: this project and a yardstick of the same work, measured in interleaved pairs in one process.

`finetuning` measures what trainings come to instead: accuracy and time of sets of flags.
"""
