"""Labels out of a store, batch by batch, in this process or another."""
