"""What is done: a folder per stage over the data, networks and labels they share; no stage imports another."""
