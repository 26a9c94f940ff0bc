"""The pipeline: one short spark-submit entry per command."""
