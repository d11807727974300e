"""The durable, ordered, replayable record of each source's batches."""
