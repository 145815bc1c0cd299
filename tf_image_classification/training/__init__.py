"""What the training loop uses and users never import: state, steps, distribution, the training folder, its history."""
