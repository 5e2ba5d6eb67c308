"""From rollouts to a changed policy: score, partition, step."""
