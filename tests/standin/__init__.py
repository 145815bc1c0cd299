"""Loopback services that behave like the real ones: Vertex AI Pipelines, and a bucket. `python -m tests.standin` starts them."""
