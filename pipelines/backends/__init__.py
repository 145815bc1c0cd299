"""The services that run pipelines: Vertex AI and Kubeflow, behind one interface."""
