"""The container images of the pipeline's steps: what each contains, its tag, and how it is built."""
