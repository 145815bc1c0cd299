"""Vertex AI Pipelines, Kubeflow Pipelines and a bucket on 127.0.0.1; `python -m tests.standin` starts them."""
