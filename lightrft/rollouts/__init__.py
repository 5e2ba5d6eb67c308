"""Rollouts: an engine samples responses, the collector turns them into rewarded rollouts of one step."""
