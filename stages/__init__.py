"""What is done: one file per stage; no stage imports another."""
