"""Speed and memory, as ratios against yardsticks measured side by side in one run."""
