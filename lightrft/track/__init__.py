"""What a run tells: the console, metrics.jsonl, TensorBoard, plots, run.json, summary.json."""
