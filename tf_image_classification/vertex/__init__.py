"""What talks to Vertex AI: the only room that imports its SDK. Nothing else of the framework imports it."""
