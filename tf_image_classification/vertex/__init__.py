"""Everything that talks to Vertex AI: the only package of the framework that imports its SDK."""
