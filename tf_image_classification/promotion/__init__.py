"""The steps that are never cached and the model in service: resolve, champion, gate, notify."""
