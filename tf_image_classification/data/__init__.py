"""What data exists, and how it is written down: sources, manifest, TFRecords."""
