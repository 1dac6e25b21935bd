"""What text may be trained on and emitted: rules, detectors, redaction."""
