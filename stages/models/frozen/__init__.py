"""A frozen teacher as stage one and online teaching meet it."""
