"""Starting a training as the tasks of a cluster, on the platform that the launching step runs on."""
