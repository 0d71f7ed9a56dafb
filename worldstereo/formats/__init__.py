"""Scene folders in, results out: readers and writers, one file a format; no torch."""
