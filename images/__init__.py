"""The container images that the pipeline's steps run in: what each holds, its tag, and how it is built."""
