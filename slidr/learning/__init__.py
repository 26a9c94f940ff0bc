"""The steps of a training run, where tables, guardrails, methods and calibration meet; `jobs/train.py` puts them in order."""
