"""What the training loop uses and users never import: steps, distribution, the training folder, its history."""
