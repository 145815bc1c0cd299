"""TensorFlow Image Classification Framework: TFRecords, fine-tuning and evaluation as pipeline steps."""

__version__ = "2.0.0"
