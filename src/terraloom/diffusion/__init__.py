"""What is learned and how it is sampled: noise schedules, losses, samplers, windows."""
