"""The build as a job of Dataflow: launched, followed and cancelled by a step of a pipeline."""
