"""Images and labels: from files on disk to batches."""
