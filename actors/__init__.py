"""What runs on Ray: workers, worker groups, memory banks."""
